"""The results of a load test as JSON and CSV."""

from __future__ import annotations

import csv
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from reelserve.client import VideoInfo
from reelserve.loadtest.figures import GOAL_CLIP_S, Scale, StageFigures, all_figures
from reelserve.loadtest.plan import CLOSED, Plan
from reelserve.loadtest.records import Measurement
from reelserve.loadtest.verdict import Goals, Verdict, judge

DIGITS = 4


@dataclass(frozen=True)
class Outcome:
    """A load test that has ended, with its judgement.

    Args:
        plan: What was done.
        measurement: What was written down.
        goals: What was to be met.
        info: Of a clip like those measured.
        scale: To videos of 10 s and one GPU.
        stages: Figures of every level.
        verdict: The judgement.
        origin: Command, hardware, commit, date and versions.
    """

    plan: Plan
    measurement: Measurement
    goals: Goals
    info: VideoInfo
    scale: Scale
    stages: tuple[StageFigures, ...]
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
    stages = all_figures(measurement, plan.loop)
    if not stages:
        raise ValueError(f"nothing was measured: {measurement.unfinished}")
    scale = Scale(info.duration_s, gpus)
    verdict = judge(stages, goals, scale, plan.loop, measurement.unfinished)
    return Outcome(plan, measurement, goals, info, scale, tuple(stages), verdict, origin)


def as_json(found: Outcome) -> dict[str, Any]:
    """The results file. Throughput and seconds are normalised, except under `measured`."""
    plan, verdict, scale, info = found.plan, found.verdict, found.scale, found.info
    judged = sweep_row(verdict.stage, scale, plan.loop)
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
        "judged": {level: verdict.stage.level},
        "knee": {level: verdict.knee.level, "saturated": verdict.saturated},
        "sweep": [
            {**sweep_row(stage, scale, plan.loop), "measured": _measured(stage)}
            for stage in found.stages
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


def sweep_row(stage: StageFigures, scale: Scale, loop: str) -> dict[str, Any]:
    """Figures of a level, normalised."""
    seconds = {
        name: number(scale.latency_s(getattr(stage, name)))
        for name in ("mean_s", "p50_s", "p95_s", "p99_s")
    }
    return {
        level_key(loop): stage.level,
        "videos_per_s": number(scale.videos_per_s(stage.clips_per_s)),
        **seconds,
        "clips": stage.clips,
        "errors": stage.errors,
        "refused": stage.refused,
        "error_share": number(stage.error_share),
        "refused_share": number(stage.refused_share),
        "littles_law_ratio": number(stage.law_ratio),
    }


def write_csv(found: Outcome, folder: Path) -> None:
    """Writes `sweep.csv`, a row for each level, and `requests.csv`, one for each request."""
    folder.mkdir(parents=True, exist_ok=True)
    rows = [
        {**sweep_row(stage, found.scale, found.plan.loop), **_flat(_measured(stage))}
        for stage in found.stages
    ]
    _write(folder / "sweep.csv", rows)
    windows = found.measurement.stages
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


def _measured(stage: StageFigures) -> dict[str, Any]:
    """What was measured of clips as they are; seconds of the server's stages are for each clip."""
    return {
        "window_s": number(stage.window_s),
        "clips_per_s": number(stage.clips_per_s),
        "mean_s": number(stage.mean_s),
        "mean_in_flight": number(stage.mean_in_flight),
        "expected_in_flight": number(stage.expected_in_flight),
        "queue_s": {model: number(times.queue_s) for model, times in stage.server.items()},
        "compute_s": {model: number(times.compute_s) for model, times in stage.server.items()},
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
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(columns), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
