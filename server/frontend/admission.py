"""Who has a place, on which Triton, for how long, and what clips cost."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass, field

DECODE_STEPS = 9
"""Denoising steps that cost about as much as all that follows (`docs/results/bench_cpu.json`)."""
MEMORY = 0.3
"""Weight of the newest clip in the average cost."""
LEAST_SHARE_LEFT = 0.05
"""Share of its cost that a clip still has to take once it has taken longer than expected."""


def clip_units(num_frames: int, height: int, width: int, num_inference_steps: int) -> float:
    """Size of a clip in megapixels times steps."""
    return num_frames * height * width * (num_inference_steps + DECODE_STEPS) / 1e6


@dataclass
class TritonLoad:
    """The clips of one Triton, which share its machine evenly.

    Args:
        name: Name of the Triton.
        ready: Whether it takes clips.
    """

    name: str
    ready: bool = False
    places: list[Place] = field(default_factory=list)
    _share_s: float = 0.0
    """Seconds that a clip would have computed if it had been here all the time."""
    _counted: float = field(default_factory=time.monotonic)

    def share_s(self) -> float:
        """A clock that runs at one nth of the speed while n clips are here."""
        now = time.monotonic()
        self._share_s += (now - self._counted) / max(1, len(self.places))
        self._counted = now
        return self._share_s


@dataclass(eq=False)
class Place:
    """A clip in flight.

    Args:
        load: The load of the Triton that draws it.
        units: See `clip_units`.
        began_share_s: Value of `TritonLoad.share_s` when it was taken.
        holder: Name of the caller that it is for; empty where callers have none.
    """

    load: TritonLoad
    units: float
    began_share_s: float
    holder: str = ""

    def taken_s(self) -> float:
        """Its share of the machine's time until now."""
        return self.load.share_s() - self.began_share_s


class Admission:
    """Gives out the places of a server; used by one thread alone.

    Args:
        loads: The load of each Triton.
        limit: Clips in flight on each.
        together: Clips that take steps together on each; the others wait.
    """

    def __init__(self, loads: Sequence[TritonLoad], limit: int, together: int) -> None:
        self._loads, self._limit, self._together = loads, limit, together
        self._seconds_per_unit: float | None = None

    @property
    def limit(self) -> int:
        """Clips in flight over all Tritons."""
        return self._limit * len(self._loads)

    @property
    def in_flight(self) -> int:
        """Clips in flight over all Tritons."""
        return sum(len(load.places) for load in self._loads)

    @property
    def ready(self) -> bool:
        """Whether a Triton takes clips."""
        return any(load.ready for load in self._loads)

    def choose(self) -> TritonLoad | None:
        """The Triton with the fewest clips, if it has a place left."""
        ready = [load for load in self._loads if load.ready]
        load = min(ready, key=lambda one: len(one.places), default=None)
        return load if load is not None and len(load.places) < self._limit else None

    def held_by(self, holder: str) -> list[Place]:
        """The places of a caller."""
        return [place for load in self._loads for place in load.places if place.holder == holder]

    def take(self, load: TritonLoad, units: float, holder: str = "") -> Place:
        """Takes a place; `free` gives it back."""
        place = Place(load, units, load.share_s(), holder)
        load.places.append(place)
        return place

    def free(self, place: Place, *, finished: bool) -> None:
        """Gives a place back, once; a clip that was finished tells what clips cost."""
        if finished:
            cost, known = place.taken_s() / place.units, self._seconds_per_unit
            self._seconds_per_unit = cost if known is None else known + MEMORY * (cost - known)
        else:
            place.load.share_s()
        place.load.places.remove(place)

    def expected_s(self, load: TritonLoad, units: float) -> float | None:
        """Seconds that a clip takes behind all others of a Triton; None while nothing is known."""
        cost = self._seconds_per_unit
        if cost is None:
            return None
        return units * cost + sum(self._left_s(place, cost) for place in load.places)

    def next_end_s(self) -> float | None:
        """Seconds until a clip in flight ends; None while nothing is known.

        The oldest clips are those that share the machine, as many as take steps together.
        """
        cost, ends = self._seconds_per_unit, []
        for load in self._loads:
            oldest = load.places[: self._together]
            if cost is not None and oldest:
                ends.append(min(self._left_s(place, cost) for place in oldest) * len(oldest))
        return min(ends, default=None)

    def remaining_s(self, place: Place) -> float | None:
        """Estimate of the seconds until a clip is there; None while nothing is known."""
        cost = self._seconds_per_unit
        return None if cost is None else self._left_s(place, cost) * len(place.load.places)

    def retry_after_s(self, unknown_s: float, holder: str | None = None) -> float:
        """Whole seconds after which a refused request may be sent again.

        Args:
            unknown_s: Said while nothing is known of how long clips take.
            holder: Caller who needs one of its own places back; None for any place.
        """
        if holder is None:
            return math.ceil(self.next_end_s() or unknown_s)
        ends = [self.remaining_s(place) or unknown_s for place in self.held_by(holder)]
        return math.ceil(min(ends, default=unknown_s))

    def _left_s(self, place: Place, cost: float) -> float:
        whole = place.units * cost
        return max(LEAST_SHARE_LEFT * whole, whole - place.taken_s())
