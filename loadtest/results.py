"""The results of a load test as JSON and CSV."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from reelserve.client import VideoInfo
from reelserve.loadtest.figures import GOAL_CLIP_S, LevelFigures, Scale, all_figures
from reelserve.loadtest.plan import CLOSED, Plan
from reelserve.loadtest.records import Measurement
from reelserve.loadtest.verdict import Goals, Verdict, judge
from reelserve.pipeline.atomic_file import write_file

DIGITS = 4


@dataclass(frozen=True)
class Outcome:
    """A load test that has ended, with its judgement.

    Args:
        plan: What was done.
        measurement: What was written down.
        goals: What was to be met.
        info: INFO of a clip like those measured.
        scale: To videos of 10 s and one GPU.
        levels: Figures of every level.
        verdict: The judgement.
        origin: Command, hardware, commit, date and versions.
    """

    plan: Plan
    measurement: Measurement
    goals: Goals
    info: VideoInfo
    scale: Scale
    levels: tuple[LevelFigures, ...]
    verdict: Verdict
    origin: Mapping[str, Any]


def outcome(
    plan: Plan,
    measurement: Measurement,
    goals: Goals,
    info: VideoInfo,
    gpus: int,
    origin: Mapping[str, Any],
) -> Outcome:
    """Works out figures and verdict; arguments as in `Outcome`.

    Raises:
        ValueError: If no level was measured.
    """
    levels = all_figures(measurement, plan.loop)
    if not levels:
        raise ValueError(f"nothing was measured: {measurement.unfinished}")
    scale = Scale(info.duration_s, gpus)
    verdict = judge(levels, goals, scale, plan.loop, measurement.unfinished)
    return Outcome(plan, measurement, goals, info, scale, tuple(levels), verdict, origin)


def as_json(found: Outcome) -> dict[str, Any]:
    """The results file. Throughput and seconds are normalised, except under `measured`."""
    plan, verdict, scale, info = found.plan, found.verdict, found.scale, found.info
    judged = sweep_row(verdict.judged, scale, plan.loop)
    shape = ("num_inference_steps", "guidance_scale", "num_frames", "fps", "height", "width")
    level = level_key(plan.loop)
    return {
        "verdict": "pass" if verdict.passed else "fail",
        **{name: judged[name] for name in ("videos_per_s", "p50_s", "p95_s", "p99_s")},
        **{name: judged[name] for name in ("error_share", "refused_share")},
        "normalised_to": {"clip_s": GOAL_CLIP_S, "per": scale.per, "gpus": scale.gpus},
        "findings": [asdict(finding) for finding in verdict.findings],
        "reached": list(verdict.reached),
        "goals": asdict(found.goals),
        "loop": plan.loop,
        "judged": {level: verdict.judged.level},
        "knee": {level: verdict.knee.level, "saturated": verdict.saturated},
        "sweep": [
            {**sweep_row(figures, scale, plan.loop), "measured": _measured(figures)}
            for figures in found.levels
        ],
        "errors": found.measurement.errors,
        "request": {
            "name": plan.name,
            **{name: getattr(info, name) for name in (*shape, "checkpoint", "engine")},
            "prompts": len(plan.prompts),
        },
        "plan": {
            name: value
            for name, value in asdict(plan).items()
            if name not in ("url", "name", "loop", "levels", "prompts", "request")
        },
        **found.origin,
        "versions": info.versions,
    }


def level_key(loop: str) -> str:
    """What a level is called in files."""
    return "concurrency" if loop == CLOSED else "rate_per_s"


def sweep_row(figures: LevelFigures, scale: Scale, loop: str) -> dict[str, Any]:
    """Figures of a level, normalised."""
    seconds = {
        name: number(scale.latency_s(getattr(figures, name)))
        for name in ("mean_s", "p50_s", "p95_s", "p99_s")
    }
    return {
        level_key(loop): figures.level,
        "videos_per_s": number(scale.videos_per_s(figures.clips_per_s)),
        **seconds,
        "clips": figures.clips,
        "errors": figures.errors,
        "refused": figures.refused,
        "error_share": number(figures.error_share),
        "refused_share": number(figures.refused_share),
        "littles_law_ratio": number(figures.law_ratio),
    }


def write_csv(found: Outcome, folder: Path) -> None:
    """Writes `sweep.csv`, a row for each level, and `requests.csv`, one for each request."""
    folder.mkdir(parents=True, exist_ok=True)
    rows = [
        {**sweep_row(figures, found.scale, found.plan.loop), **_flat(_measured(figures))}
        for figures in found.levels
    ]
    _write(folder / "sweep.csv", rows)
    windows = found.measurement.windows
    _write(
        folder / "requests.csv",
        [
            {
                **asdict(request),
                "latency_s": request.latency_s,
                "counted_at": next(
                    (w.level for w in windows if w.holds(request, found.plan.loop)), ""
                ),
            }
            for request in found.measurement.requests
        ],
    )


def number(value: float) -> float | None:
    """A figure of a file; JSON has no infinity."""
    return round(value, DIGITS) if math.isfinite(value) else None


def _measured(figures: LevelFigures) -> dict[str, Any]:
    """What was measured of clips as they are; seconds of the server's stages are for each clip."""
    return {
        "window_s": number(figures.window_s),
        "clips_per_s": number(figures.clips_per_s),
        "mean_s": number(figures.mean_s),
        "mean_in_flight": number(figures.mean_in_flight),
        "expected_in_flight": number(figures.expected_in_flight),
        "queue_s": {model: number(times.queue_s) for model, times in figures.server.items()},
        "compute_s": {model: number(times.compute_s) for model, times in figures.server.items()},
    }


def _flat(measured: Mapping[str, Any]) -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, value in measured.items():
        if isinstance(value, dict):
            flat |= {f"{model}_{name}": seconds for model, seconds in value.items()}
        else:
            flat[f"measured_{name}"] = value
    return flat


def _write(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    columns: Iterable[str] = dict.fromkeys(name for row in rows for name in row)
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, list(columns), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    write_file(path, text.getvalue())
