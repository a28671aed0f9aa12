"""Counters, gauges and histograms on Triton's own endpoint; inside a Triton stage only."""

from __future__ import annotations

import json
import threading
from typing import Any

import triton_python_backend_utils as pb_utils

from reelserve.pipeline.contract import PUBLIC_MODELS
from reelserve.server.clip_run import STAGE_ORDER, Tensors

STAGE_BUCKETS_S = (0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 60.0, 120.0, 300.0, 600.0)
CLIP_BUCKETS_S = (0.5, 1.0, 2.0, 5.0, 10.0, 20.0, 30.0, 60.0, 120.0, 180.0, 300.0, 600.0)
OUTCOMES = ("ok", "invalid", "refused", "cancelled", "failed")
REFUSALS = ("capacity", "deadline")
SHARINGS = ("joined", "cached")
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


class TritonRecorder:
    """What the conductor tells, as metrics.

    Args:
        max_requests_in_flight: The bound, so that alerts need no copy of it.
    """

    def __init__(self, max_requests_in_flight: int) -> None:
        self._requests = Family("requests_total", "Requests that have ended, by outcome", "counter")
        self._refusals = Family("refusals_total", "Requests refused, by reason", "counter")
        self._cancels = Family("cancels_total", "Clients that left, by the stage then", "counter")
        self._shared = Family(
            "shared_answers_total", "Requests answered by another one's clip", "counter"
        )
        self._videos = Family("videos_total", "Clips produced", "counter")
        self._video_seconds = Family("video_seconds_total", "Seconds of video produced", "counter")
        self._flight = Family("requests_in_flight", "Clips accepted and not ended", "gauge")
        self._stage = Family(
            "stage_seconds", "Seconds of a stage, waiting included", "histogram", STAGE_BUCKETS_S
        )
        self._request = Family(
            "request_seconds", "Seconds from accepted to clip", "histogram", CLIP_BUCKETS_S
        )
        # Kept, since Triton drops a metric that nobody holds.
        self._limit = Family(
            "max_requests_in_flight", "Clips in flight over which requests are refused", "gauge"
        )
        self._limit.set(max_requests_in_flight)
        self.in_flight(0)
        # At 0 from the start, so that a first increase is seen as one.
        for model in PUBLIC_MODELS:
            for outcome in OUTCOMES:
                self._requests.increment(0, model=model, outcome=outcome)
            for reason in REFUSALS:
                self._refusals.increment(0, model=model, reason=reason)
            for stage in STAGE_ORDER:
                self._cancels.increment(0, model=model, stage=stage)
        for how in SHARINGS:
            self._shared.increment(0, how=how)

    def in_flight(self, count: int) -> None:
        """See `Recorder`, as for the methods below."""
        self._flight.set(count)

    def refused(self, model: str, reason: str) -> None:
        """Counts."""
        self._refusals.increment(model=model, reason=reason)

    def cancelled(self, model: str, stage: str) -> None:
        """Counts."""
        self._cancels.increment(model=model, stage=stage)

    def shared(self, how: str) -> None:
        """Counts."""
        self._shared.increment(how=how)

    def stage(self, name: str, seconds: float) -> None:
        """Observes."""
        self._stage.observe(seconds, stage=name)

    def ended(self, model: str, outcome: str, seconds: float, outputs: Tensors | None) -> None:
        """Counts, and measures what succeeded."""
        self._requests.increment(model=model, outcome=outcome)
        if outputs is None:
            return
        self._request.observe(seconds, model=model)
        info = json.loads(outputs["INFO"].reshape(-1)[0])
        self._videos.increment(1)
        self._video_seconds.increment(info["num_frames"] / info["fps"])


class StepRecorder:
    """What `video_diffusion` does in a round, as metrics."""

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
