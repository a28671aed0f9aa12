"""Sends malformed calls to a running server and judges every answer."""

from __future__ import annotations

import itertools
import re
import threading
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import grpc
import numpy as np
from tritonclient.grpc import InferenceServerClient, InferInput, service_pb2

from reelserve.client._client import channel_arguments
from reelserve.commands.faults.malformed import STREAM, Call, malformed_call
from reelserve.commands.faults.well_formed import Shapes
from reelserve.pipeline.checkpoint import CheckpointSpec

SERVICE = "/inference.GRPCInferenceService/"
THREADS = 6
CALL_TIMEOUT_S = 60.0
"""A call without an answer by then hangs; a valid one takes seconds."""
REVEALING = re.compile(
    r"Traceback|File \"|\.(py|cc|cpp|h|hpp|onnx|so)\b|\bAt:\n|"
    r"(?<![\w.])/(tmp|home|usr|work|opt|root|var|dev|proc|onnxruntime_src)\b|0x[0-9a-f]{8,}"
)
"""Of what no caller should read: stack traces, source files, paths, addresses."""
NO_ANSWER = ("UNAVAILABLE", "DEADLINE_EXCEEDED")
"""With gRPC's own words: the server is gone, or it hangs."""
GONE = re.compile(r"(?i)socket closed|connect|connection|goaway|broken pipe|RST_STREAM|unreachable")
MAX_EXAMPLES = 20


@dataclass
class Tally:
    """What the calls got.

    Args:
        statuses: Status, or `OK`, to how often.
        revealing: Messages that say more than a caller should read, with the fault.
        silent: Calls that got no answer at all.
        wordless: Calls whose error had no message.
    """

    statuses: Counter[str] = field(default_factory=Counter)
    revealing: list[str] = field(default_factory=list)
    silent: list[str] = field(default_factory=list)
    wordless: list[str] = field(default_factory=list)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def add(self, call: Call, status: str, message: str) -> None:
        """Counts one answer."""
        example = f"{call.fault} ({call.method}): {status}: {message}"
        with self._lock:
            self.statuses[status] += 1
            if REVEALING.search(message):
                self.revealing.append(example)
            # Only gRPC itself has no words, for a method that does not exist.
            if status not in ("OK", "UNIMPLEMENTED") and not message:
                self.wordless.append(example)
            if status == "DEADLINE_EXCEEDED" or (status == "UNAVAILABLE" and GONE.search(message)):
                self.silent.append(example)

    @property
    def calls(self) -> int:
        """Counted so far."""
        return sum(self.statuses.values())

    @property
    def clean(self) -> bool:
        """Whether every answer was one that a caller can use."""
        return not (self.revealing or self.silent or self.wordless)


class Fuzzer:
    """A connection that malformed calls go through.

    Args:
        url: `host:port` of the server's gRPC endpoint.
        spec: The served checkpoint.
        seed: Of the calls.
    """

    def __init__(self, url: str, spec: CheckpointSpec, seed: int) -> None:
        self._channel = grpc.insecure_channel(url, options=channel_arguments(url))
        self._shapes, self._seed = Shapes(spec, embed_width(url, spec)), seed
        self.tally = Tally()

    def send(self, first: int, last: int) -> None:
        """Sends calls `first` to `last - 1`, some at a time."""
        numbers = iter(range(first, last))
        with ThreadPoolExecutor(THREADS) as pool:
            list(pool.map(self._work, itertools.repeat(numbers, THREADS)))

    def close(self) -> None:
        """Closes the connection."""
        self._channel.close()

    def _work(self, numbers: Iterator[int]) -> None:
        for number in numbers:
            call = malformed_call(self._seed, number, self._shapes)
            status, message = self._answer(call)
            self.tally.add(call, status, message)

    def _answer(self, call: Call) -> tuple[str, str]:
        try:
            if call.method == STREAM:
                return self._stream(call)
            self._channel.unary_unary(SERVICE + call.method)(
                call.messages[0], timeout=CALL_TIMEOUT_S
            )
        except grpc.RpcError as error:
            return error.code().name, error.details() or ""
        return "OK", ""

    def _stream(self, call: Call) -> tuple[str, str]:
        """The first error of a stream, which may come as a message or as its status."""
        answers = self._channel.stream_stream(SERVICE + call.method)(
            iter(call.messages), timeout=CALL_TIMEOUT_S
        )
        found = ("OK", "")
        for answer in answers:
            response = service_pb2.ModelStreamInferResponse.FromString(answer)
            if response.error_message and found[0] == "OK":
                found = ("error in the stream", response.error_message)
        return found


def embed_width(url: str, spec: CheckpointSpec) -> int:
    """`E` of the text encoder, which the checkpoint does not tell."""
    ids = np.zeros((1, 2, spec.limits.max_prompt_tokens), np.int64)
    inputs: list[Any] = []
    for name, array in (("INPUT_IDS", ids), ("ATTENTION_MASK", ids + 1)):
        inputs.append(InferInput(name, list(array.shape), "INT64"))
        inputs[-1].set_data_from_numpy(array)
    with InferenceServerClient(url, channel_args=channel_arguments(url)) as client:
        result = client.infer("text_encoder", inputs, client_timeout=CALL_TIMEOUT_S)
    return int(result.as_numpy("PROMPT_EMBEDS").shape[-1])
