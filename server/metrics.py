"""Counters, gauges and histograms on Triton's own endpoint; inside a Triton stage only."""

from __future__ import annotations

import threading
from typing import Any

import triton_python_backend_utils as pb_utils

STAGE_BUCKETS_S = (0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 60.0, 120.0, 300.0, 600.0)
OCCUPANCY_BUCKETS = (1.0, 2.0, 3.0, 4.0, 6.0, 8.0, 12.0, 16.0)

_ONE_AT_A_TIME = threading.Lock()
"""Two threads of a stage that touch metrics at once crash the server (seen with Triton 2.51)."""


class Family:
    """A metric with labels.

    Args:
        name: Without the prefix `reelserve_`.
        description: Help text.
        kind: `counter`, `gauge` or `histogram`.
        buckets: Of a histogram.
    """

    def __init__(
        self, name: str, description: str, kind: str, buckets: tuple[float, ...] = ()
    ) -> None:
        kinds = pb_utils.MetricFamily
        self._family = pb_utils.MetricFamily(
            name=f"reelserve_{name}",
            description=description,
            kind={"counter": kinds.COUNTER, "gauge": kinds.GAUGE, "histogram": kinds.HISTOGRAM}[
                kind
            ],
        )
        self._options = {"buckets": list(buckets)} if buckets else {}
        self._metrics: dict[tuple[tuple[str, str], ...], Any] = {}

    def increment(self, value: float = 1, **labels: str) -> None:
        """Adds to a counter."""
        with _ONE_AT_A_TIME:
            self._of(labels).increment(value)

    def set(self, value: float, **labels: str) -> None:
        """Sets a gauge."""
        with _ONE_AT_A_TIME:
            self._of(labels).set(value)

    def observe(self, value: float, **labels: str) -> None:
        """Adds to a histogram."""
        with _ONE_AT_A_TIME:
            self._of(labels).observe(value)

    def _of(self, labels: dict[str, str]) -> Any:
        key = tuple(sorted(labels.items()))
        if key not in self._metrics:
            self._metrics[key] = self._family.Metric(labels=labels, **self._options)
        return self._metrics[key]


class StepRecorder:
    """What `video_diffusion` does, as metrics."""

    def __init__(self) -> None:
        self._seconds = Family(
            "step_seconds", "Seconds of a denoising step of the batch", "histogram", STAGE_BUCKETS_S
        )
        self._occupancy = Family(
            "batch_occupancy", "Clips in a denoising step", "histogram", OCCUPANCY_BUCKETS
        )
        self._waiting = Family("requests_waiting", "Clips that wait for a place", "gauge")
        self._active = Family("requests_active", "Clips that take denoising steps", "gauge")
        self.held(0, 0)

    def held(self, active: int, count: int) -> None:
        """So many clips take steps, of so many that are here."""
        self._active.set(active)
        self._waiting.set(count - active)

    def step(self, clips: int, seconds: float) -> None:
        """One step of so many clips together."""
        self._occupancy.observe(clips)
        self._seconds.observe(seconds)
