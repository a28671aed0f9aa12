"""Every metric of ours: name, kind, meaning, labels. One line here, and it is documented.

The front end counts most of them (`frontend/metrics.py`), `video_diffusion` those of its steps
(`stages/step_metrics.py`); `make docs` writes the table of docs/serving.md.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from reelserve.pipeline.contract import ENSEMBLE_STAGES, PUBLIC_MODEL

PREFIX = "reelserve_"
STEP_BUCKETS_S = (0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 60.0, 120.0, 300.0, 600.0)
CLIP_BUCKETS_S = (0.5, 1.0, 2.0, 5.0, 10.0, 20.0, 30.0, 60.0, 120.0, 180.0, 300.0, 600.0)
OCCUPANCY_BUCKETS = (1.0, 2.0, 3.0, 4.0, 6.0, 8.0, 12.0, 16.0)
MODEL = {"model": (PUBLIC_MODEL,)}
STAGE = {"stage": ENSEMBLE_STAGES}


@dataclass(frozen=True)
class Metric:
    """A metric.

    Args:
        name: Its name without the prefix, and without the `_total` of counters.
        kind: What it is to Prometheus.
        text: What it says, for its HELP line and the page.
        labels: Each label, and all values that it can have.
        buckets: Upper bounds, of a histogram alone.
    """

    name: str
    kind: Literal["counter", "gauge", "histogram"]
    text: str
    labels: Mapping[str, tuple[str, ...]] = field(default_factory=dict, hash=False)
    buckets: tuple[float, ...] = ()

    @property
    def series(self) -> str:
        """Name on the endpoint; a histogram's series add an ending of their own."""
        return f"{PREFIX}{self.name}{'_total' if self.kind == 'counter' else ''}"


REQUESTS = Metric(
    "requests",
    "counter",
    "Requests that have ended",
    {**MODEL, "outcome": ("ok", "invalid", "refused", "cancelled", "failed")},
)
REFUSALS = Metric(
    "refusals",
    "counter",
    "Requests refused: no place, too short a deadline, a server that starts or drains, no known "
    "API key, or as many clips of the caller as its limit",
    {**MODEL, "reason": ("capacity", "deadline", "draining", "starting", "key", "quota")},
)
CANCELS = Metric(
    "cancels",
    "counter",
    "Clients that left or were too late, by the stage then",
    {**MODEL, **STAGE},
)
SHARED_ANSWERS = Metric(
    "shared_answers",
    "counter",
    "Requests answered by another one's clip: still being drawn, or kept",
    {"how": ("joined", "cached")},
)
TRITONS_READY = Metric("tritons_ready", "gauge", "Tritons that take clips")
TRITON_RESTARTS = Metric("triton_restarts", "counter", "Times that a Triton was started again")
REQUESTS_IN_FLIGHT = Metric("requests_in_flight", "gauge", "Clips accepted and not ended")
MAX_REQUESTS_IN_FLIGHT = Metric(
    "max_requests_in_flight", "gauge", "Clips in flight over which requests are refused"
)
REQUESTS_ACTIVE = Metric("requests_active", "gauge", "Clips that take denoising steps")
REQUESTS_WAITING = Metric(
    "requests_waiting", "gauge", "Clips that wait for a place among those that take steps"
)
REQUEST_SECONDS = Metric(
    "request_seconds", "histogram", "Seconds from accepted to clip", MODEL, CLIP_BUCKETS_S
)
STAGE_SECONDS = Metric(
    "stage_seconds", "histogram", "Seconds of a stage, waiting included", STAGE, STEP_BUCKETS_S
)
STEP_SECONDS = Metric(
    "step_seconds",
    "histogram",
    "Seconds of a denoising step: of the batch, or of one clip where each takes its own (GPU)",
    buckets=STEP_BUCKETS_S,
)
BATCH_OCCUPANCY = Metric(
    "batch_occupancy",
    "histogram",
    "Clips in a step; 1 where each takes its own",
    buckets=OCCUPANCY_BUCKETS,
)
VIDEOS = Metric("videos", "counter", "Clips produced")
VIDEO_SECONDS = Metric("video_seconds", "counter", "Seconds of video produced")
SPANS_DROPPED = Metric(
    "spans_dropped",
    "counter",
    "Spans of traces that were not sent: too many waited, or the collector did not take them",
    {"reason": ("full", "failed")},
)

OF_FRONT_END = (
    *(REQUESTS, REFUSALS, CANCELS, SHARED_ANSWERS, TRITONS_READY, TRITON_RESTARTS),
    *(REQUESTS_IN_FLIGHT, MAX_REQUESTS_IN_FLIGHT, REQUEST_SECONDS, STAGE_SECONDS),
    *(VIDEOS, VIDEO_SECONDS, SPANS_DROPPED),
)
OF_STEPS = (REQUESTS_ACTIVE, REQUESTS_WAITING, STEP_SECONDS, BATCH_OCCUPANCY)
"""On Triton's own endpoint, which the front end's shows too."""
