"""The service's own metrics, and Triton's, in one answer for Prometheus."""

from __future__ import annotations

import json
import re
import urllib.request
from collections.abc import Callable, Mapping
from http.client import HTTPException

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    disable_created_metrics,
    generate_latest,
)

from reelserve.pipeline.contract import ENSEMBLE_STAGES, INFO, PUBLIC_MODEL

STAGE_BUCKETS_S = (0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 60.0, 120.0, 300.0, 600.0)
CLIP_BUCKETS_S = (0.5, 1.0, 2.0, 5.0, 10.0, 20.0, 30.0, 60.0, 120.0, 180.0, 300.0, 600.0)
OUTCOMES = ("ok", "invalid", "refused", "cancelled", "failed")
REFUSALS = ("capacity", "deadline", "draining", "starting")
SHARINGS = ("joined", "cached")
PREFIX = "reelserve_"
TRITON_TIMEOUT_S = 2.0
NO_PROXY = urllib.request.build_opener(urllib.request.ProxyHandler({}))
"""A proxy of the environment is not for this machine's own addresses."""
SAMPLE = re.compile(r"^(?P<name>[a-zA-Z_:][\w:]*)(?:\{(?P<labels>.*)\})? (?P<value>\S+)$")


class Recorder:
    """What the front end counts.

    Args:
        limit: Clips in flight over which requests are refused, so that alerts need no copy of it.
        in_flight: Clips accepted and not ended, now.
        tritons: Tritons that take clips, now.
    """

    def __init__(
        self, limit: int, in_flight: Callable[[], float], tritons: Callable[[], float]
    ) -> None:
        disable_created_metrics()  # type: ignore[no-untyped-call]
        self.registry = CollectorRegistry()
        self._requests = self._counter("requests", "Requests that have ended", "model", "outcome")
        self._refusals = self._counter("refusals", "Requests refused", "model", "reason")
        self._cancels = self._counter("cancels", "Clients that left, by stage", "model", "stage")
        self._shared = self._counter("shared_answers", "Answered by another one's clip", "how")
        self._videos = self._counter("videos", "Clips produced")
        self._video_seconds = self._counter("video_seconds", "Seconds of video produced")
        self._restarts = self._counter("triton_restarts", "Times that a Triton was started again")
        self._stage = self._histogram("stage_seconds", "Of a stage", STAGE_BUCKETS_S, "stage")
        self._request = self._histogram(
            "request_seconds", "From accepted to clip", CLIP_BUCKETS_S, "model"
        )
        self._gauge("requests_in_flight", "Clips accepted and not ended", in_flight)
        self._gauge("max_requests_in_flight", "Over which requests are refused", lambda: limit)
        self._gauge("tritons_ready", "Tritons that take clips", tritons)
        # At 0 from the start, so that a first increase is seen as one.
        for outcome in OUTCOMES:
            self._requests.labels(PUBLIC_MODEL, outcome)
        for reason in REFUSALS:
            self._refusals.labels(PUBLIC_MODEL, reason)
        for stage in ENSEMBLE_STAGES:
            self._cancels.labels(PUBLIC_MODEL, stage)
            self._stage.labels(stage)
        for how in SHARINGS:
            self._shared.labels(how)

    def refused(self, reason: str) -> None:
        """A request was refused: one of `REFUSALS`."""
        self._refusals.labels(PUBLIC_MODEL, reason).inc()

    def cancelled(self, stage: str) -> None:
        """A client left while its clip was in this stage."""
        self._cancels.labels(PUBLIC_MODEL, stage).inc()

    def shared(self, how: str) -> None:
        """A request is answered by another one's clip: `cached` or `joined`."""
        self._shared.labels(how).inc()

    def ended(self, outcome: str, seconds: float = 0.0) -> None:
        """A request has ended: one of `OUTCOMES`."""
        self._requests.labels(PUBLIC_MODEL, outcome).inc()
        if outcome == "ok":
            self._request.labels(PUBLIC_MODEL).observe(seconds)

    def drawn(self, outputs: Mapping[str, bytes]) -> None:
        """A clip was produced."""
        info = json.loads(outputs[INFO.name])
        self._videos.inc()
        self._video_seconds.inc(info["num_frames"] / info["fps"])

    def stages(self, seconds: Mapping[str, float]) -> None:
        """Stages of a clip have ended, waiting included."""
        for stage, value in seconds.items():
            if stage in ENSEMBLE_STAGES:
                self._stage.labels(stage).observe(value)

    def restarted(self) -> None:
        """A Triton was started again."""
        self._restarts.inc()

    def _counter(self, name: str, text: str, *labels: str) -> Counter:
        return Counter(PREFIX + name, text, labels, registry=self.registry)

    def _histogram(
        self, name: str, text: str, buckets: tuple[float, ...], *labels: str
    ) -> Histogram:
        return Histogram(PREFIX + name, text, labels, registry=self.registry, buckets=buckets)

    def _gauge(self, name: str, text: str, value: Callable[[], float]) -> None:
        Gauge(PREFIX + name, text, registry=self.registry).set_function(value)


def exposition(registry: CollectorRegistry, urls: Mapping[str, str]) -> bytes:
    """Our metrics and those of every Triton, in Prometheus' text format.

    Args:
        registry: Metrics of the front end.
        urls: Where each Triton shows its metrics, by its name; empty while it does not run.
    """
    texts = {name: _read(url) for name, url in urls.items() if url}
    # By how many there are, not by how many answer: a series keeps its labels.
    if len(urls) == 1 and texts:
        return generate_latest(registry) + next(iter(texts.values())).encode()
    return generate_latest(registry) + merged(texts).encode()


def merged(texts: Mapping[str, str]) -> str:
    """The metrics of several Tritons, told apart by the label `triton`."""
    families: dict[str, list[str]] = {}
    for name, text in texts.items():
        family: list[str] = []
        for line in text.splitlines():
            if line.startswith("# HELP "):
                family = families.setdefault(line.split(" ", 3)[2], [])
            if line.startswith("#"):
                if line not in family:
                    family.append(line)
            elif match := SAMPLE.match(line):
                labels = ",".join(filter(None, (match["labels"], f'triton="{name}"')))
                family.append(f"{match['name']}{{{labels}}} {match['value']}")
    return "".join(f"{line}\n" for family in families.values() for line in family)


def _read(url: str) -> str:
    try:
        with NO_PROXY.open(url, timeout=TRITON_TIMEOUT_S) as reply:
            text: str = reply.read().decode(errors="replace")
            return text
    except (OSError, HTTPException):
        # It is being started again.
        return ""
