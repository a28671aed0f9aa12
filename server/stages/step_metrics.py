"""Metrics of `video_diffusion` on Triton's own endpoint; inside a Triton stage only."""

from __future__ import annotations

import threading
from typing import Any

import triton_python_backend_utils as pb_utils

STEP_BUCKETS_S = (0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 60.0, 120.0, 300.0, 600.0)
OCCUPANCY_BUCKETS = (1.0, 2.0, 3.0, 4.0, 6.0, 8.0, 12.0, 16.0)


class StepRecorder:
    """What `video_diffusion` does, as metrics; called from many threads."""

    def __init__(self) -> None:
        self._families: list[Any] = []
        # Two threads of a stage that touch metrics at once crash the server (seen with 2.51).
        self._lock = threading.Lock()
        kinds = pb_utils.MetricFamily
        self._seconds = self._metric(
            "step_seconds", "Seconds of a denoising step", kinds.HISTOGRAM, buckets=STEP_BUCKETS_S
        )
        self._occupancy = self._metric(
            "batch_occupancy", "Clips in a step", kinds.HISTOGRAM, buckets=OCCUPANCY_BUCKETS
        )
        self._waiting = self._metric("requests_waiting", "Clips that wait for a place", kinds.GAUGE)
        self._active = self._metric("requests_active", "Clips that take steps", kinds.GAUGE)
        self.held(0, 0)

    def held(self, active: int, count: int) -> None:
        """So many clips take steps, of so many that are here."""
        with self._lock:
            self._active.set(active)
            self._waiting.set(count - active)

    def step(self, clips: int, seconds: float) -> None:
        """One step of so many clips together."""
        with self._lock:
            self._occupancy.observe(clips)
            self._seconds.observe(seconds)

    def _metric(self, name: str, description: str, kind: Any, **options: Any) -> Any:
        family = pb_utils.MetricFamily(f"reelserve_{name}", description, kind)
        # Kept, since Triton drops a metric whose family nobody holds.
        self._families.append(family)
        return family.Metric(labels={}, **{k: list(v) for k, v in options.items()})
