"""Puts what the phases have measured together: the results file."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from reelserve.loadtest.results import number
from reelserve.tools.bench.gpu.cases import Case, MeasuredCase
from reelserve.tools.bench.gpu.phases import CURVES, EXPORT, IN_PROCESS, SERVE
from reelserve.tools.bench.gpu.served_clips import LEVEL_CLIPS
from reelserve.tools.bench.gpu.state import Result, State


def collect(cases: Sequence[Case], state: State, how: Result) -> Result:
    """The results file, of all that has been measured so far.

    Args:
        cases: In the order of the file.
        state: Holds what was measured, and on what.
        how: Engine, precision, command and plot.

    Raises:
        ValueError: If it was measured on more than one kind of GPU.
    """
    models = [found for case in cases if (found := model_results(case, state)) is not None]
    curves = [
        curve for case in cases for curve in (state.find(case, CURVES) or {"curves": []})["curves"]
    ]
    return {"models": models, "curves": curves, **how, **newest_origin(cases, state)}


def newest_origin(cases: Sequence[MeasuredCase], state: State) -> Result:
    """Machine, versions, commit and date of what was measured last; empty before anything was.

    Raises:
        ValueError: If it was measured on more than one kind of GPU.
    """
    origins = [origin for case in cases for origin in state.origins(case)]
    gpus = sorted({origin["gpu"] for origin in origins})
    if len(gpus) > 1:
        raise ValueError(f"measured on {' and on '.join(gpus)}; the results file is of one GPU")
    return max(origins, key=lambda origin: str(origin["date"]), default={})


def model_results(case: Case, state: State) -> Result | None:
    """Figures of one model, null where they are not measured yet; None before its export."""
    exported = state.find(case, EXPORT)
    if exported is None:
        return None
    alone = state.find(case, IN_PROCESS)
    levels = [found for n in LEVEL_CLIPS if (found := state.find(case, f"{SERVE} {n}"))]
    best = max(levels, key=lambda level: level["videos_per_s"] or 0.0, default={})
    single = next((level for level in levels if level["concurrency"] == 1), {})
    peaks = [level["peak_memory_bytes"] for level in levels if level["peak_memory_bytes"]]
    stages = exported["stages"]
    height, width = case.decoded
    return {
        "model": case.name,
        "weights": case.weights,
        "parameters": sum(stage["num_parameters"] for stage in stages.values()),
        "denoiser_parameters": stages["denoiser"]["num_parameters"],
        "steps": case.steps,
        "guidance_scale": case.guidance,
        "frames": case.num_frames,
        "fps": case.fps,
        "height": case.height,
        "width": case.width,
        "decoded_height": height,
        "decoded_width": width,
        "videos_per_s": best.get("videos_per_s"),
        "concurrency": best.get("concurrency"),
        "p95_s": best.get("p95_s"),
        "idle_share": best.get("idle_share"),
        "seconds_at_1": single.get("mean_s"),
        "stages_s": single.get("stages_s"),
        "peak_memory_bytes": max(peaks, default=None),
        "server_overhead_share": overhead_share(alone, single),
        "in_process": alone,
        "served": state.find(case, f"{SERVE} first"),
        "levels": levels,
        "export": exported,
        "commits": sorted({origin["commit"] for origin in state.origins(case)}),
    }


def overhead_share(alone: Result | None, single: Result) -> float | None:
    """Share of a served clip's seconds that the same stages do not take in one process."""
    if alone is None or not single.get("mean_s"):
        return None
    return number(1 - alone["seconds"] / single["mean_s"])


def missing(cases: Sequence[Case], state: State, *, curves: bool) -> list[str]:
    """Phases that have not been run."""
    wanted = [EXPORT, IN_PROCESS, *(f"{SERVE} {level}" for level in LEVEL_CLIPS)]
    found: list[str] = []
    for case in cases:
        own: list[Any] = [*wanted, CURVES] if curves and case.weights == "random" else wanted
        found += [f"{case.name}: {phase}" for phase in own if state.find(case, phase) is None]
    return found
