"""Sends malformed calls to a running server and judges every answer."""

from __future__ import annotations

import itertools
import re
import threading
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

import grpc
from tritonclient.grpc import service_pb2

from reelserve.client._channel import channel_arguments
from reelserve.pipeline.checkpoint import CheckpointSpec
from reelserve.tools.faults.malformed import STREAM, MalformedCall, malformed_call

SERVICE = "/inference.GRPCInferenceService/"
THREADS = 6
CALL_TIMEOUT_S = 60.0
"""A call without an answer by then hangs; a valid one takes seconds."""
REVEALING = re.compile(
    r"Traceback|File \"|\.(py|cc|cpp|h|hpp|onnx|so)\b|\bAt:\n|"
    r"(?<![\w.])/(tmp|home|usr|work|opt|root|var|dev|proc|onnxruntime_src)\b|0x[0-9a-f]{8,}"
)
"""What no caller should read: stack traces, source files, paths, addresses."""
EXPECTED = (
    *("OK", "INVALID_ARGUMENT", "NOT_FOUND", "PERMISSION_DENIED", "UNIMPLEMENTED"),
    # Full, or slower than the request's own time; too large a message is gRPC's to refuse.
    *("UNAVAILABLE", "DEADLINE_EXCEEDED", "RESOURCE_EXHAUSTED"),
)
NO_ANSWER = ("UNAVAILABLE", "DEADLINE_EXCEEDED")
"""With gRPC's own words: the server is gone, or it hangs."""
GONE = re.compile(
    r"(?i)socket closed|connect|connection|goaway|broken pipe|RST_STREAM|unreachable|"
    r"^deadline exceeded$"
)
IN_STREAM = re.compile(r"(?P<status>[A-Z_]+): (?P<message>.*)", re.DOTALL)
"""What the message of an error in a stream looks like."""
WORDLESS = "error in the stream without a status"


@dataclass
class Tally:
    """What the calls got.

    Args:
        statuses: Status, or `OK`, to how often.
        revealing: Messages that say more than a caller should read, with the fault.
        silent: Calls that got no answer at all.
        wordless: Calls whose error had no message.
        unexpected: Calls with a status that no fault of a caller has.
    """

    statuses: Counter[str] = field(default_factory=Counter)
    revealing: list[str] = field(default_factory=list)
    silent: list[str] = field(default_factory=list)
    wordless: list[str] = field(default_factory=list)
    unexpected: list[str] = field(default_factory=list)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def add(self, call: MalformedCall, status: str, message: str) -> None:
        """Counts one answer."""
        example = f"{call.fault} ({call.method}): {status}: {message}"
        with self._lock:
            self.statuses[status] += 1
            if REVEALING.search(message):
                self.revealing.append(example)
            if status != "OK" and not message:
                self.wordless.append(example)
            if status not in EXPECTED:
                self.unexpected.append(example)
            if status in NO_ANSWER and GONE.search(message):
                self.silent.append(example)

    @property
    def calls(self) -> int:
        """Counted so far."""
        return sum(self.statuses.values())

    @property
    def faults(self) -> int:
        """What is wrong with the answers, counted."""
        return sum(map(len, (self.revealing, self.silent, self.wordless, self.unexpected)))

    @property
    def clean(self) -> bool:
        """Whether every answer was one that a caller can use."""
        return not self.faults


class Fuzzer:
    """A connection that malformed calls go through.

    Args:
        url: `host:port` of the server's gRPC endpoint.
        spec: The served checkpoint.
        seed: Seed of the calls.
    """

    def __init__(self, url: str, spec: CheckpointSpec, seed: int) -> None:
        self._channel = grpc.insecure_channel(url, options=channel_arguments(url))
        self._spec, self._seed = spec, seed
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
            call = malformed_call(self._seed, number, self._spec)
            status, message = self._answer(call)
            self.tally.add(call, status, message)

    def _answer(self, call: MalformedCall) -> tuple[str, str]:
        try:
            if call.method == STREAM:
                return self._stream(call)
            self._channel.unary_unary(SERVICE + call.method)(
                call.messages[0], timeout=CALL_TIMEOUT_S
            )
        except grpc.RpcError as error:
            return error.code().name, error.details() or ""
        return "OK", ""

    def _stream(self, call: MalformedCall) -> tuple[str, str]:
        """The first error of a stream, which may come as a message or as its status."""
        answers = self._channel.stream_stream(SERVICE + call.method)(
            iter(call.messages), timeout=CALL_TIMEOUT_S
        )
        found = ("OK", "")
        for answer in answers:
            response = service_pb2.ModelStreamInferResponse.FromString(answer)
            if response.error_message and found[0] == "OK":
                told = IN_STREAM.fullmatch(response.error_message)
                words = response.error_message
                found = (told["status"], told["message"]) if told else (WORDLESS, words)
        return found
