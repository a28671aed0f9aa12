"""Callers of a soak: each sends one request after the other, of every kind in turn by chance."""

from __future__ import annotations

import contextlib
import random
import time
from collections import Counter
from collections.abc import Callable

import grpc

from reelserve.client import Client, GenerateOptions, ReelserveError
from reelserve.client._channel import channel_arguments
from reelserve.pipeline.checkpoint import CheckpointSpec
from reelserve.tools.faults.calls import valid_requests
from reelserve.tools.faults.fuzzing import GONE, SERVICE, Fuzzer
from reelserve.tools.faults.load import CLIP_OUTCOME, NOTHING, REFUSED, error_outcome
from reelserve.tools.faults.malformed import UNARY

PROMPTS = ("a red star", "a blue circle moves", "a small green square spins on the sea", "⭐" * 40)
CLIP_TIMEOUT_S = 300.0
RETRIES = 10
SHORT_S = (0.02, 1.5)
"""Deadlines that most clips miss."""
CANCELLED_AFTER_S = (0.0, 0.5)
MALFORMED_AT_ONCE, MALFORMED_PAUSE_S = 20, 2.0
"""Malformed calls go out in handfuls, so that they do not crowd out the clips."""
LEFT, CANCELLED, TOO_LATE = "left", "cancelled", "DeadlineExceededError"
ALLOWED = (CLIP_OUTCOME, LEFT, CANCELLED, "InvalidArgumentError", TOO_LATE, REFUSED)
"""Refused with a hint: a stage was killed, or the deadline was too short for the queue."""


NAMES = {"OK": CLIP_OUTCOME, "CANCELLED": CANCELLED, "DEADLINE_EXCEEDED": TOO_LATE}
"""Outcomes of a raw call by its status."""


class Caller:
    """A caller with a connection of its own.

    Args:
        url: `host:port` of the server's gRPC endpoint.
        spec: The served checkpoint.
        seed: Seed of what it sends.
    """

    def __init__(self, url: str, spec: CheckpointSpec, seed: int) -> None:
        self._url, self._spec, self._rng = url, spec, random.Random(seed)
        self.outcomes: Counter[str] = Counter()

    def work(self, going: Callable[[], bool]) -> None:
        """Sends requests as long as it is told to."""
        acts = (self._clip, self._stream, self._leave, self._refused, self._short, self._cancel)
        with Client(self._url, timeout_s=CLIP_TIMEOUT_S, max_retries=RETRIES) as client:
            while going():
                act = self._rng.choices(acts, (6, 4, 2, 1, 2, 1))[0]
                try:
                    outcome = act(client)
                except ReelserveError as error:
                    outcome = error_outcome(error)
                # Anything else is a fault of the client, and must not end the caller unseen.
                except Exception as error:
                    outcome = type(error).__name__
                self.outcomes[outcome] += 1

    def _prompt(self) -> str:
        return self._rng.choice(PROMPTS)

    def _options(self) -> GenerateOptions:
        limits, rng = self._spec.limits, self._rng
        frames = limits.num_frames
        return {
            "seed": rng.randrange(2**31),
            "num_inference_steps": rng.randint(1, limits.num_inference_steps.default),
            "guidance_scale": rng.choice((1.0, limits.guidance_scale.default)),
            "num_frames": rng.choice((frames.low, frames.low + frames.multiple_of, frames.default)),
            "priority": rng.choice(("interactive", "batch")),
        }

    def _clip(self, client: Client) -> str:
        client.generate(self._prompt(), **self._options())
        return CLIP_OUTCOME

    def _stream(self, client: Client) -> str:
        for event in client.stream(self._prompt(), **self._options()):
            if event.video is not None:
                return CLIP_OUTCOME
        return NOTHING

    def _leave(self, client: Client) -> str:
        with contextlib.closing(client.stream(self._prompt(), **self._options())) as stream:
            for _ in range(self._rng.randint(1, 6)):
                if next(stream).video is not None:
                    return CLIP_OUTCOME
        return LEFT

    def _refused(self, client: Client) -> str:
        client.generate("a red star", num_frames=self._spec.limits.num_frames.low + 1)
        return CLIP_OUTCOME

    def _short(self, client: Client) -> str:
        options: GenerateOptions = {**self._options(), "timeout_s": self._rng.uniform(*SHORT_S)}
        client.generate(self._prompt(), **options)
        return CLIP_OUTCOME

    def _cancel(self, client: Client) -> str:
        """A call without progress, taken back: something that the client itself never does."""
        request = self._rng.choice(valid_requests(self._spec, self._rng))
        with grpc.insecure_channel(self._url, options=channel_arguments(self._url)) as channel:
            call = channel.unary_unary(SERVICE + UNARY).future(request, timeout=CLIP_TIMEOUT_S)
            time.sleep(self._rng.uniform(*CANCELLED_AFTER_S))
            call.cancel()
            status, details = call.code(), call.details() or ""
        if status is grpc.StatusCode.UNAVAILABLE and not GONE.search(details):
            return REFUSED
        name: str = status.name
        return NAMES.get(name, name)


def send_malformed(fuzzer: Fuzzer, going: Callable[[], bool]) -> None:
    """Sends malformed calls, a handful at a time, as long as it is told to."""
    first = 0
    while going():
        fuzzer.send(first, first + MALFORMED_AT_ONCE)
        first += MALFORMED_AT_ONCE
        time.sleep(MALFORMED_PAUSE_S)
