"""Denoising steps of the clips whose turn it is: all of them together, or each by itself."""

from __future__ import annotations

import time
from collections.abc import Callable, Hashable, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from typing import Protocol

from reelserve.server.batching import Arrays, run_batched
from reelserve.server.diffusion import Clip

ABSENT_S = 0.005
"""That an ended step waits for its request before the next look."""

Denoise = Callable[[Arrays], Arrays]
"""Inputs of the `denoiser` stage to its outputs, both by name, batch dimension first."""
Outcome = Exception | None
"""None, or why a step failed."""


class StepListener(Protocol):
    """Is told of steps, from any thread."""

    def step(self, clips: int, seconds: float) -> None:
        """One step of so many clips together."""


class Steps(Protocol):
    """How clips take their steps."""

    def take(self, turn: Mapping[Hashable, Clip], here: set[Hashable]) -> dict[Hashable, Outcome]:
        """Lets clips take steps.

        Args:
            turn: Clips whose turn it is, not done, by the key of their request.
            here: Keys that may be answered now, of these and others.

        Returns:
            Clips of `here` whose step has ended.
        """

    def forget(self, key: Hashable) -> None:
        """The clip has left; what it still computes is of no interest."""


class JoinedSteps:
    """One step of all clips at a time, those of equal shapes in one batch.

    Args:
        denoise: The denoiser.
        max_rows: Rows that one call of it may have.
        listener: Told of the steps.
    """

    def __init__(self, denoise: Denoise, max_rows: int, listener: StepListener) -> None:
        self._denoise, self._max_rows, self._listener = denoise, max_rows, listener

    def take(self, turn: Mapping[Hashable, Clip], here: set[Hashable]) -> dict[Hashable, Outcome]:
        """See `Steps`."""
        if not turn:
            return {}
        started = time.monotonic()
        outcomes = denoise_step(list(turn.values()), self._denoise, self._max_rows)
        self._listener.step(len(turn), time.monotonic() - started)
        return dict(zip(turn, outcomes, strict=True))

    def forget(self, key: Hashable) -> None:
        """Nothing is computed between two calls."""


class FreeSteps:
    """Every clip takes steps at its own pace, in a thread of its own.

    The device computes one clip while the latents of another are moved on the host; no clip waits
    for the slowest of a round.

    Args:
        denoise: The denoiser; called from many threads.
        max_rows: Rows that one call of it may have.
        listener: Told of the steps.
        max_active: Clips that take steps at the same time.
    """

    def __init__(
        self, denoise: Denoise, max_rows: int, listener: StepListener, max_active: int
    ) -> None:
        self._denoise, self._max_rows, self._listener = denoise, max_rows, listener
        self._pool = ThreadPoolExecutor(max_active)
        self._running: dict[Hashable, Future[Outcome]] = {}

    def take(self, turn: Mapping[Hashable, Clip], here: set[Hashable]) -> dict[Hashable, Outcome]:
        """See `Steps`; returns when a step has ended, of whichever clip."""
        for key, clip in turn.items():
            if key not in self._running:
                self._running[key] = self._pool.submit(self._one, clip)
        ended = [key for key, step in self._running.items() if step.done()]
        if here.isdisjoint(ended):
            self._wait(most_s=ABSENT_S if ended else None)
            ended = [key for key, step in self._running.items() if step.done()]
        return {key: self._running.pop(key).result() for key in ended if key in here}

    def forget(self, key: Hashable) -> None:
        """See `Steps`. Its thread is free when the step that it takes has ended."""
        step = self._running.pop(key, None)
        if step is not None:
            step.cancel()

    def _wait(self, most_s: float | None) -> None:
        """Waits for the next step to end, or so long for the request of one that has."""
        going = [step for step in self._running.values() if not step.done()]
        if going:
            wait(going, most_s, FIRST_COMPLETED)
        elif most_s is not None:
            time.sleep(most_s)

    def _one(self, clip: Clip) -> Outcome:
        started = time.monotonic()
        outcome = denoise_step([clip], self._denoise, self._max_rows)[0]
        self._listener.step(1, time.monotonic() - started)
        return outcome


def denoise_step(clips: Sequence[Clip], denoise: Denoise, max_rows: int) -> list[Outcome]:
    """Takes one step of every clip, those of equal shapes together.

    Args:
        clips: Not done yet.
        denoise: The denoiser.
        max_rows: Rows that one call of it may have.

    Returns:
        For every clip None, or why its step failed.
    """
    results = run_batched([clip.denoiser_inputs() for clip in clips], denoise, max_rows)
    return [_advance(clip, result) for clip, result in zip(clips, results, strict=True)]


def _advance(clip: Clip, result: Arrays | Exception) -> Outcome:
    if isinstance(result, Exception):
        return result
    try:
        clip.sampler.advance(result["VELOCITY"])
    except Exception as error:
        return error
    return None
