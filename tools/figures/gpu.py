"""Writes the figures of the GPU benchmark as Markdown, from `docs/results/bench_gpu_<gpu>.json`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from reelserve.tools.figures.tables import Results, short_commit, table

NONE = "–"
BILLION = 10**9
AGAINST = {"frames": "frames", "pixels": "pixels of a frame"}
WHAT = {"step": "a denoising step", "decode": "LTX-Video's decoder"}


def bench_gpu(files: Sequence[Results]) -> str:
    """What each model does at the load that it serves most clips at."""
    titles = (
        "Model, weights",
        "Parameters",
        "Clip",
        "Steps",
        "Videos per second",
        "At once",
        "p95, s",
        "One at a time, s",
        "GPU idle",
        "Server's share",
        "GPU memory, GiB",
        "Commit",
    )
    parts = []
    for results in files:
        rows = [
            (
                f"`{model['model']}`, {model['weights']}",
                _parameters(model["parameters"]),
                clip_shape(model),
                str(model["steps"]),
                decimal(model["videos_per_s"], 3),
                decimal(model["concurrency"], 0),
                decimal(model["p95_s"], 2),
                decimal(model["seconds_at_1"], 2),
                _percent(model["idle_share"]),
                _percent(model["server_overhead_share"]),
                decimal(model["peak_memory_bytes"], 1, 2**30),
                _commits([model]),
            )
            for model in results["models"]
        ]
        parts += [table(titles, rows), _measured(results)]
    return "\n\n".join(parts)


def bench_gpu_levels(files: Sequence[Results]) -> str:
    """Each level of load."""
    titles = (
        "Model",
        "At once",
        "Videos per second",
        "p50, s",
        "p95, s",
        "Clips",
        "GPU idle",
        "Clock, MHz",
        "Power, W",
    )
    parts = []
    for results in files:
        rows = [
            (
                f"`{model['model']}`",
                str(level["concurrency"]),
                decimal(level["videos_per_s"], 3),
                decimal(level["p50_s"], 2),
                decimal(level["p95_s"], 2),
                str(level["clips"]),
                _percent(level["idle_share"]),
                decimal(level.get("clock_mhz"), 0),
                decimal(level.get("power_w"), 0),
            )
            for model in results["models"]
            for level in model["levels"]
        ]
        parts += [table(titles, rows), _measured(results)]
    return "\n\n".join(parts)


def bench_gpu_stages(files: Sequence[Results]) -> str:
    """Seconds of the stages: in one process, and served one at a time."""
    parts = []
    for results in files:
        models = [model for model in results["models"] if model["in_process"]]
        names = list(dict.fromkeys(name for m in models for name in m["in_process"]["stages_s"]))
        titles = ("Stage", *(f"`{model['model']}`: in process, served" for model in models))
        rows = [
            (f"`{name}`", *(f"{_alone(model, name)}, {_served(model, name)}" for model in models))
            for name in names
        ]
        totals = (
            f"{decimal(model['in_process']['seconds'], 3)}, {decimal(model['seconds_at_1'], 3)}"
            for model in models
        )
        parts += [table(titles, [*rows, ("a clip", *totals)]), _measured(results)]
    return "\n\n".join(parts)


def bench_gpu_curves(files: Sequence[Results]) -> str:
    """How seconds grow with frames and with size, and the plot."""
    titles = ("Model", "Seconds of", "Against", "Measured", "Exponent")
    parts = []
    for results in files:
        rows = [
            (
                f"`{curve['model']}`",
                WHAT[curve["what"]],
                AGAINST[curve["against"]],
                "; ".join(_point(curve, point) for point in curve["points"]),
                decimal(curve["exponent"], 2),
            )
            for curve in results["curves"]
        ]
        parts.append(table(titles, rows))
        if results.get("plot"):
            parts.append(f"![Throughput, latency and curves](images/{results['plot']})")
        parts.append(_measured(results))
    return "\n\n".join(parts)


def bench_gpu_export(files: Sequence[Results]) -> str:
    """What the exporter made of each model."""
    titles = ("Model", "Stage", "Parameters", "Size, GB", "Seconds", "Relative error")
    parts = []
    for results in files:
        rows = [
            (
                f"`{model['model']}`",
                f"`{name}`",
                _parameters(stage["num_parameters"]),
                f"{stage['size_bytes'] / 1e9:.2f}",
                f"{stage['seconds']:.0f}",
                f"{stage['parity']['relative_error']:.1e}",
            )
            for model in results["models"]
            for name, stage in model["export"]["stages"].items()
        ]
        parts += [table(titles, rows), _measured(results)]
    return "\n\n".join(parts)


GPU_WRITERS: dict[str, Callable[[Sequence[Results]], str]] = {
    "bench_gpu": bench_gpu,
    "bench_gpu_levels": bench_gpu_levels,
    "bench_gpu_stages": bench_gpu_stages,
    "bench_gpu_curves": bench_gpu_curves,
    "bench_gpu_export": bench_gpu_export,
}
"""Name of a block to what writes it, from all files `bench_gpu_<gpu>.json`."""


def clip_shape(model: Results) -> str:
    """Frames, frame rate and size of a model's clips."""
    size = f"{model['width']}×{model['height']}"
    if model["decoded_height"] != model["height"]:
        size += f" from {model['decoded_width']}×{model['decoded_height']}"
    return f"{model['frames']} frames at {model['fps']}, {size}"


def _parameters(count: int) -> str:
    return f"{count / 1e9:.2f} B" if count >= BILLION else f"{count / 1e6:.1f} M"


def _alone(model: Results, stage: str) -> str:
    return decimal(model["in_process"]["stages_s"].get(stage), 3)


def _served(model: Results, stage: str) -> str:
    return decimal((model["stages_s"] or {}).get(stage), 3)


def _point(curve: Results, point: Results) -> str:
    at = f"{point['frames']}" if curve["against"] == "frames" else _size(point)
    return f"{at}: {point['seconds']:.3f}"


def _size(point: Results) -> str:
    return f"{point['width']}×{point['height']}"


def decimal(value: Any, digits: int, unit: float = 1.0) -> str:
    """A figure in a unit with so many decimals; a dash where it is not known."""
    return NONE if value is None else f"{value / unit:.{digits}f}"


def _percent(share: float | None) -> str:
    return NONE if share is None else f"{100 * share:.0f}%"


def _measured(results: Results) -> str:
    return measured_by("bench-gpu", results, _commits(results["models"]))


def measured_by(target: str, results: Results, commits: str) -> str:
    """The sentence under a table: by what and on what it was measured.

    Args:
        target: What `make` is told.
        results: Name the hardware, the engine and the versions.
        commits: The code that was measured.
    """
    versions = results["versions"]
    libraries = ", ".join(f"{name} {versions[name]}" for name in sorted(versions))
    return (
        f"Measured by `make {target}` on {results['gpu']}, "
        f"driver {results['driver'] or NONE}, {results['cpu']}, {results['cores']} cores: "
        f"engine {results['engine']}, {results['precision']}; {libraries}; "
        f"commit {commits}, {results['date']}."
    )


def _commits(models: Sequence[Results]) -> str:
    found = {short_commit(commit) for model in models for commit in model["commits"]}
    return ", ".join(sorted(found)) or NONE
