"""The denoising loop: clips join it and leave it between two steps."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Protocol

from reelserve.server.batching import Arrays, run_batched
from reelserve.server.errors import ClipCancelledError, StageUnavailableError
from reelserve.server.stages.diffusion import DiffusionClip

KEPT_FOR_BATCH = 1
"""Places that interactive requests leave to the others, so that those finish too."""

Denoise = Callable[[Arrays], Arrays]
"""Inputs of the `denoiser` stage to its outputs, both by name, batch dimension first."""
StepFailure = Exception | None
"""None, or why a step failed."""


class StepObserver(Protocol):
    """Is told of steps, from any thread."""

    def step(self, clips: int, seconds: float) -> None:
        """One step of so many clips together."""

    def held(self, active: int, count: int) -> None:
        """So many clips take steps, of so many that are here."""


class Waiter(Protocol):
    """Who waits for the latents of a clip; called from the loop's threads."""

    def cancelled(self) -> bool:
        """Whether nobody waits any more."""

    def stepped(self, clip: DiffusionClip, began: float) -> None:
        """A step has ended that began at this moment of the monotonic clock."""

    def finish(self, outputs: Mapping[str, Any]) -> None:
        """The latents are there."""

    def fail(self, error: Exception) -> None:
        """There will be none."""


@dataclass(eq=False)
class _Member:
    clip: DiffusionClip
    waiter: Waiter
    stepping: bool = False


@dataclass(frozen=True)
class LoopSettings:
    """Bounds of the loop.

    Args:
        max_active: Clips that take steps; later ones wait for a place.
        max_in_flight: Clips held in all; later ones are refused.
        max_rows: Rows that one call of the denoiser may have.
        join: Whether all active clips take one step together. Otherwise each takes its steps at
            its own pace: a device computes one clip while the latents of another are moved.
    """

    max_active: int
    max_in_flight: int
    max_rows: int
    join: bool


class DenoisingLoop:
    """The clips that are being denoised.

    Args:
        denoise: The denoiser; called from many threads where clips do not join.
        settings: Bounds.
        observer: Told of the steps.
    """

    def __init__(self, denoise: Denoise, settings: LoopSettings, observer: StepObserver) -> None:
        self._denoise, self._settings, self._observer = denoise, settings, observer
        self._members: list[_Member] = []
        self._lock = threading.Lock()
        self._closed = False
        self._pool = ThreadPoolExecutor(1 if settings.join else settings.max_active)

    def admit(self, make: Callable[[], DiffusionClip], waiter: Waiter) -> None:
        """Adds a clip; `waiter` will be told its latents, or an error.

        Raises:
            StageUnavailableError: If the loop is full, or closed.
            ValueError: If `make` refuses the request.
        """
        with self._lock:
            if self._closed:
                raise StageUnavailableError("the server is shutting down")
            limit = self._settings.max_in_flight
            if len(self._members) >= limit:
                raise StageUnavailableError(f"{limit} requests are in flight, as many as the limit")
            self._members.append(_Member(make(), waiter))
        self._go_on()

    def close(self) -> None:
        """Fails what waits, and waits for the steps that are being taken."""
        with self._lock:
            self._closed = True
            waiting = [member for member in self._members if not member.stepping]
            self._members = [member for member in self._members if member.stepping]
        for member in waiting:
            member.waiter.fail(StageUnavailableError("the server is shutting down"))
        self._pool.shutdown(wait=True)

    def _go_on(self) -> None:
        """Lets those whose turn it is take a step; those that nobody waits for leave."""
        with self._lock:
            left = [m for m in self._members if not m.stepping and m.waiter.cancelled()]
            self._members = [member for member in self._members if member not in left]
            active = _active(self._members, self._settings.max_active)
            groups = self._groups(active)
            for member in (member for group in groups for member in group):
                member.stepping = True
            self._observer.held(len(active), len(self._members))
            if not self._closed:
                for group in groups:
                    self._pool.submit(self._step, group)
        for member in left:
            member.waiter.fail(ClipCancelledError("the request was cancelled"))

    def _groups(self, active: Sequence[_Member]) -> list[list[_Member]]:
        """Those of `active` that can take a step now, by who takes it together."""
        if not self._settings.join:
            return [[member] for member in active if not member.stepping]
        # A joined step takes all of them, so it waits for the one before it.
        busy = any(member.stepping for member in self._members)
        return [] if busy or not active else [list(active)]

    def _step(self, group: Sequence[_Member]) -> None:
        started = time.monotonic()
        clips = [member.clip for member in group]
        try:
            outcomes = denoise_step(clips, self._denoise, self._settings.max_rows)
        except Exception as error:
            # A mistake in here must not leave its clips waiting for ever.
            outcomes = [error] * len(clips)
        self._observer.step(len(group), time.monotonic() - started)
        ended = []
        for member, failure in zip(group, outcomes, strict=True):
            if failure is None:
                member.waiter.stepped(member.clip, started)
            if failure is not None or member.clip.sampler.done or self._closed:
                ended.append((member, failure))
        with self._lock:
            for member, _ in ended:
                self._members.remove(member)
            for member in group:
                member.stepping = False
        # The next step goes on while the latents of this one are handed over.
        self._go_on()
        for member, failure in ended:
            _tell(member, failure)


def _tell(member: _Member, failure: StepFailure) -> None:
    if failure is not None:
        member.waiter.fail(failure)
    elif member.clip.sampler.done:
        member.waiter.finish(member.clip.outputs())
    else:
        member.waiter.fail(StageUnavailableError("the server is shutting down"))


def _active(members: Sequence[_Member], most: int) -> list[_Member]:
    """Whose turn it is: the interactive ones and, in what is left, the others, oldest first.

    Where both wait and there is more than one place, one is kept for the others.
    """
    first = [member for member in members if member.clip.rank == 0]
    others = [member for member in members if member.clip.rank > 0]
    kept = min(len(others), KEPT_FOR_BATCH, most - 1)
    chosen = first[: most - kept]
    return [*chosen, *others[: most - len(chosen)]]


def denoise_step(
    clips: Sequence[DiffusionClip], denoise: Denoise, max_rows: int
) -> list[StepFailure]:
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


def _advance(clip: DiffusionClip, result: Arrays | Exception) -> StepFailure:
    if isinstance(result, Exception):
        return result
    try:
        clip.sampler.advance(result["VELOCITY"])
    except Exception as error:
        return error
    return None
