"""How long a clip will still take, from how long others took."""

from __future__ import annotations

import threading
import time
from collections.abc import Hashable
from dataclasses import dataclass, field

DECODE_STEPS = 9
"""What follows denoising costs as much as about so many steps (`docs/results/bench_cpu.json`)."""
MEMORY = 0.3
"""Weight of the newest clip in the average."""
LEAST_SHARE_LEFT = 0.05
"""Of a clip that has taken longer than expected."""


def clip_units(num_frames: int, height: int, width: int, num_inference_steps: int) -> float:
    """Size of a clip in megapixels times steps."""
    return num_frames * height * width * (num_inference_steps + DECODE_STEPS) / 1e6


@dataclass
class _Work:
    units: float
    started: float


@dataclass
class WorkEstimate:
    """Shares the machine's time between the clips in flight, and learns the cost of one unit.

    A clip's share of a second in which `n` are in flight is `1/n`: what it would have taken
    alone, whoever ran beside it. Thread-safe.
    """

    seconds_per_unit: float | None = None
    _shared: float = 0.0
    _looked: float = field(default_factory=time.monotonic)
    _works: dict[Hashable, _Work] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def begin(self, key: Hashable, units: float) -> None:
        """Counts a clip among those in flight."""
        with self._lock:
            self._works[key] = _Work(units, self._now())

    def end(self, key: Hashable, *, finished: bool) -> None:
        """Counts it no longer; a finished one teaches the cost of a unit."""
        with self._lock:
            now, work = self._now(), self._works.pop(key, None)
            if work is None or not finished:
                return
            cost = (now - work.started) / work.units
            known = self.seconds_per_unit
            self.seconds_per_unit = cost if known is None else known + MEMORY * (cost - known)

    def remaining_s(self, key: Hashable) -> float | None:
        """Seconds until a clip is done if those in flight stay; None while nothing is known."""
        with self._lock:
            work = self._works.get(key)
            if work is None or self.seconds_per_unit is None:
                return None
            return self._left(work, self._now()) * len(self._works)

    def expected_s(self, units: float, key: Hashable) -> float | None:
        """Seconds that clip `key` of `units` takes behind all the others in flight."""
        with self._lock:
            if self.seconds_per_unit is None:
                return None
            now = self._now()
            others = [work for other, work in self._works.items() if other != key]
            return units * self.seconds_per_unit + sum(self._left(work, now) for work in others)

    def next_end_s(self) -> float | None:
        """Seconds until the first clip in flight is done."""
        with self._lock:
            if self.seconds_per_unit is None or not self._works:
                return None
            now = self._now()
            return min(self._left(work, now) for work in self._works.values()) * len(self._works)

    def _left(self, work: _Work, now: float) -> float:
        """Seconds that a clip needs by itself; the cost of a unit is known."""
        whole = work.units * (self.seconds_per_unit or 0.0)
        return max(LEAST_SHARE_LEFT * whole, whole - (now - work.started))

    def _now(self) -> float:
        """The clock that every clip in flight has an equal share of."""
        now = time.monotonic()
        self._shared += (now - self._looked) / max(1, len(self._works))
        self._looked = now
        return self._shared
