"""Writes what TensorRT plans have run, from `docs/results/bench_tensorrt_<gpu>.json`."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from reelserve.tools.figures.gpu import NONE, decimal
from reelserve.tools.figures.tables import Results, short_commit, table

NOT_RUN = "*Not run yet.*"
TENSORRT = "tensorrt"
OTHERS = {"onnxruntime-gpu": "ONNX Runtime", "pytorch": "AOTInductor"}
REFUSED = "failed"


def bench_tensorrt(files: Sequence[Results]) -> str:
    """Every stage: what built, how far it is from torch in fp32, and its time beside the others."""
    titles = (
        *("Model", "Stage", "Precision", "Relative error", "Largest error", "Build, s", "Plan, MB"),
        *("TensorRT, ms", *(f"{title}, ms" for title in OTHERS.values())),
    )
    parts = []
    for results in files:
        rows = [_row(rows) for rows in _by_stage(results["stages"]).values() if TENSORRT in rows]
        parts += [table(titles, rows), _failures(results["stages"]), _measured(results)]
    return "\n\n".join(part for part in parts if part)


def bench_tensorrt_served(files: Sequence[Results]) -> str:
    """Clips of the bundled checkpoint that the real server has drawn."""
    titles = ("Engine, precision", "PSNR, dB", "Videos per second", "p95, s", "First clip, s")
    parts = []
    for results in files:
        rows = [
            (
                f"`{name}`",
                decimal(served["psnr_db"], 1),
                decimal(served.get("videos_per_s"), 2),
                decimal(served.get("p95_s"), 2),
                REFUSED if served["error"] else decimal(served.get("first_clip_s"), 2),
            )
            for name, served in results["served"].items()
        ]
        failures = "\n".join(
            f"- `{name}`: {_line(served['error'])}"
            for name, served in results["served"].items()
            if served["error"]
        )
        parts += [table(titles, rows), failures, _measured(results)]
    return "\n\n".join(part for part in parts if part)


TENSORRT_WRITERS: dict[str, Callable[[Sequence[Results]], str]] = {
    "bench_tensorrt": bench_tensorrt,
    "bench_tensorrt_served": bench_tensorrt_served,
}
"""Writers by the name of their block."""


def _by_stage(stages: Sequence[Mapping[str, Any]]) -> dict[tuple[str, ...], dict[str, Any]]:
    """Rows of the results by model, stage and precision, then by engine."""
    found: dict[tuple[str, ...], dict[str, Any]] = {}
    for row in stages:
        key = (row["model"], row["stage"], row["precision"])
        found.setdefault(key, {})[row["engine"]] = row
    return found


def _row(engines: Mapping[str, Mapping[str, Any]]) -> tuple[str, ...]:
    plan = engines[TENSORRT]
    return (
        f"`{plan['model']}`",
        f"`{plan['stage']}`",
        plan["precision"],
        NONE if plan["relative_error"] is None else f"{plan['relative_error']:.1e}",
        NONE if plan["max_error"] is None else f"{plan['max_error']:.3g}",
        decimal(plan["build_s"], 0),
        decimal(plan["plan_bytes"], 1, 1e6),
        *(_milliseconds(engines.get(engine)) for engine in (TENSORRT, *OTHERS)),
    )


def _milliseconds(row: Mapping[str, Any] | None) -> str:
    """One by one, and as a CUDA graph where it was recorded."""
    if row is not None and row["error"]:
        return REFUSED
    if row is None or row["ms"] is None:
        return NONE
    graph = "" if row["graph_ms"] is None else f" ({row['graph_ms']:.3g})"
    return f"{row['ms']:.3g}{graph}"


def _failures(stages: Sequence[Mapping[str, Any]]) -> str:
    return "\n".join(
        f"- `{row['model']}`, `{row['stage']}`, {row['engine']} in {row['precision']}: "
        f"{_line(row['error'])}"
        for row in stages
        if row["error"]
    )


def _line(error: str) -> str:
    return " ".join(error.split()).replace("|", "/")


def _measured(results: Results) -> str:
    commits = " and ".join(map(short_commit, results["commit"].split(" and ")))
    versions = ", ".join(f"{name} {version}" for name, version in results["versions"].items())
    return (
        f"Measured by `make bench-tensorrt` on {results['gpu']}, driver {results['driver']}, "
        f"{results['cpu']}, {results['cores']} cores: {versions}; commit {commits}, "
        f"{results['date']}."
    )
