"""Turns what was written down into figures of each level."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from reelserve.client import StageStatistics
from reelserve.loadtest.plan import CLOSED
from reelserve.loadtest.records import ERROR, OK, REFUSED, Measurement, RequestRecord, Window
from reelserve.pipeline.contract import STAGES

GOAL_CLIP_S = 10.0
"""Goals speak of clips that play so long."""
LAW_TOLERANCE = 0.1
"""How far Little's law may be off before a measurement is not believed."""
WORTHWHILE_GAIN = 0.05
"""More load that gives less throughput than this share is not worth its waiting."""


@dataclass(frozen=True)
class ServerTime:
    """What Triton's counters say of one model, for each clip that was drawn in the window.

    `video_diffusion` answers late, so Triton does not know its seconds. Its computing is that of
    `denoiser`, which it calls; its waiting is what clips were there beyond that, by their INFO.

    Args:
        requests: To the model; a denoising step is one.
        queue_s: Waiting for a run. Steps wait for each other, so this may exceed the window.
        compute_s: Seconds of the runs; clips that share a run share its seconds.
    """

    requests: float
    queue_s: float
    compute_s: float


@dataclass(frozen=True)
class LevelFigures:
    """One level.

    Args:
        level: Callers, or requests per second.
        window_s: Seconds that count.
        clips: Whose latencies count.
        refused: Requests that the server had no place for; no errors.
        errors: Requests that failed.
        clips_per_s: Clips that ended in the window, by its length.
        mean_s: Mean latency of clips.
        p50_s: Half of the clips took at most so long.
        p95_s: So did 95%; with fewer than 20 clips, the slowest.
        p99_s: So did 99%; with fewer than 100 clips, the slowest.
        mean_in_flight: Counted apart from latencies.
        expected_in_flight: Throughput × mean latency of all requests that ended.
        server: Stage to its times.
    """

    level: float
    window_s: float
    clips: int
    refused: int
    errors: int
    clips_per_s: float
    mean_s: float
    p50_s: float
    p95_s: float
    p99_s: float
    mean_in_flight: float
    expected_in_flight: float
    server: dict[str, ServerTime]

    @property
    def law_ratio(self) -> float:
        """Little's law: throughput × latency by what was in flight; 1 where it holds."""
        return self.expected_in_flight / self.mean_in_flight if self.mean_in_flight else math.inf

    @property
    def law_holds(self) -> bool:
        """Whether the ratio is 1 within the tolerance."""
        return abs(self.law_ratio - 1) <= LAW_TOLERANCE

    @property
    def error_share(self) -> float:
        """Failed requests among all that count."""
        return self._share(self.errors)

    @property
    def refused_share(self) -> float:
        """Refused requests among all that count."""
        return self._share(self.refused)

    @property
    def requests(self) -> int:
        """All requests that count."""
        return self.clips + self.refused + self.errors

    def _share(self, count: int) -> float:
        return count / max(1, self.requests)


@dataclass(frozen=True)
class Scale:
    """Brings a figure to clips of 10 s and to one GPU.

    Cost is taken as proportional to the seconds of video, which the pipeline's is: its denoising
    windows and its decoder work frame by frame or on runs of frames of one length.

    Args:
        clip_s: Seconds that a measured clip plays.
        gpus: How many drew them; 0 is a machine without, whose figures are those of the machine.
    """

    clip_s: float
    gpus: int

    @property
    def per(self) -> str:
        """What a figure is of."""
        return "GPU" if self.gpus else "machine (CPU)"

    def videos_per_s(self, clips_per_s: float) -> float:
        """Videos of 10 s per second, of one GPU or of the machine."""
        return clips_per_s * self.clip_s / GOAL_CLIP_S / max(1, self.gpus)

    def latency_s(self, latency_s: float) -> float:
        """Latency of a video of 10 s. More GPUs do not divide it."""
        return latency_s * GOAL_CLIP_S / self.clip_s


def all_figures(measurement: Measurement, loop: str) -> list[LevelFigures]:
    """Figures of every level whose window was closed."""
    return [level_figures(window, measurement.requests, loop) for window in measurement.windows]


def level_figures(window: Window, requests: Sequence[RequestRecord], loop: str) -> LevelFigures:
    """Figures of one level.

    Args:
        window: Its window.
        requests: Requests of the whole test.
        loop: Says which requests count, see `Window.holds`.
    """
    counted = [request for request in requests if window.holds(request, loop)]
    latencies = sorted(request.latency_s for request in counted if request.outcome == OK)
    ended = [request for request in requests if window.ended_in(request)]
    clips_ended = sum(request.outcome == OK for request in ended)
    mean_of_all_s = _mean([request.latency_s for request in counted])
    return LevelFigures(
        level=window.level,
        window_s=window.window_s,
        clips=len(latencies),
        refused=sum(request.outcome == REFUSED for request in counted),
        errors=sum(request.outcome == ERROR for request in counted),
        clips_per_s=clips_ended / window.window_s,
        mean_s=_mean(latencies),
        p50_s=percentile(latencies, 50),
        p95_s=percentile(latencies, 95),
        p99_s=percentile(latencies, 99),
        mean_in_flight=window.mean_in_flight,
        expected_in_flight=len(ended) / window.window_s * mean_of_all_s,
        server=server_times(
            window.statistics,
            clips_ended,
            [request.diffusion_s for request in counted if request.outcome == OK],
        ),
    )


def server_times(
    statistics: Mapping[str, StageStatistics], clips: int, diffusion_s: Sequence[float]
) -> dict[str, ServerTime]:
    """Stage to its times, in the order of the flow.

    Args:
        statistics: What a window added to Triton's counters.
        clips: How many ended in the window.
        diffusion_s: Seconds that each clip was in `video_diffusion`.
    """
    times = {
        model: ServerTime(
            requests=statistics[model].requests / max(1, clips),
            queue_s=statistics[model].queue_s / max(1, clips),
            compute_s=statistics[model].compute_s / max(1, clips),
        )
        for model in STAGES
        if model in statistics
    }
    if {"denoiser", "video_diffusion"} <= times.keys() and diffusion_s:
        compute_s = times["denoiser"].compute_s
        waited_s = max(0.0, _mean(diffusion_s) - compute_s)
        times["video_diffusion"] = replace(
            times["video_diffusion"], queue_s=waited_s, compute_s=compute_s
        )
    return times


def percentile(rising: Sequence[float], percent: float) -> float:
    """The smallest value that at least `percent` of the values do not exceed (nearest rank).

    It is a value that was seen; of few values the high percentiles are the largest one. Infinite
    if there are no values: a server that draws nothing meets no goal.
    """
    if not rising:
        return math.inf
    return rising[max(0, math.ceil(len(rising) * percent / 100) - 1)]


def knee(levels: Sequence[LevelFigures]) -> LevelFigures:
    """The saturation point: the lowest level within 5% of the highest throughput of the sweep.

    Up to here more load gained throughput that was worth it; beyond, requests mostly wait. If it
    is the highest level of the sweep, the server was not seen to saturate.
    """
    enough = (1 - WORTHWHILE_GAIN) * max(figures.clips_per_s for figures in levels)
    return next(figures for figures in levels if figures.clips_per_s >= enough)


def measured_models(levels: Sequence[LevelFigures]) -> list[str]:
    """Models of which there are times at every level, in the order of the flow."""
    return [model for model in levels[0].server if all(model in s.server for s in levels)]


def level_name(level: float, loop: str) -> str:
    """A level in words: `4 at once`, or `0.1 requests/s`."""
    return f"{level:g} at once" if loop == CLOSED else f"{level:g} requests/s"


def _mean(values: Sequence[float]) -> float:
    return statistics.fmean(values) if values else math.inf
