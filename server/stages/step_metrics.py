"""Metrics of `video_diffusion` on Triton's own endpoint; inside a Triton stage only."""

from __future__ import annotations

import threading

import triton_python_backend_utils as pb_utils

from reelserve.server.metric_table import (
    BATCH_OCCUPANCY,
    OF_STEPS,
    PREFIX,
    REQUESTS_ACTIVE,
    REQUESTS_WAITING,
    STEP_SECONDS,
    Metric,
)


class StepRecorder:
    """What `video_diffusion` does, as metrics; called from many threads."""

    def __init__(self) -> None:
        # Two threads of a stage that touch metrics at once crash the server (seen with 2.51).
        self._lock = threading.Lock()
        # Families are kept, since Triton drops a metric whose family nobody holds.
        self._families = {metric: _family(metric) for metric in OF_STEPS}
        self._metrics = {
            metric: family.Metric(labels={}, buckets=list(metric.buckets) or None)
            for metric, family in self._families.items()
        }
        self.held(0, 0)

    def held(self, active: int, count: int) -> None:
        """So many clips take steps, of so many that are here."""
        with self._lock:
            self._metrics[REQUESTS_ACTIVE].set(active)
            self._metrics[REQUESTS_WAITING].set(count - active)

    def step(self, clips: int, seconds: float) -> None:
        """One step of so many clips together."""
        with self._lock:
            self._metrics[BATCH_OCCUPANCY].observe(clips)
            self._metrics[STEP_SECONDS].observe(seconds)

    def close(self) -> None:
        """Takes the metrics back; nothing may be told any more.

        Else the interpreter drops them when the stage's shared memory has gone, which ends every
        server with a segmentation fault of this stage (seen with 2.51).
        """
        with self._lock:
            self._metrics.clear()
            self._families.clear()


def _family(metric: Metric) -> pb_utils.MetricFamily:
    kind = getattr(pb_utils.MetricFamily, metric.kind.upper())
    return pb_utils.MetricFamily(PREFIX + metric.name, metric.text, kind)
