"""Writes measured figures of the kernels as Markdown, from rows of CSV files of docs/results/."""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

from reelserve.tools.figures.tables import short_commit, table

Row = Mapping[str, str]
OURS = "reelserve"
SHAPE = ("B", "F", "S", "N", "D", "dtype", "qk_norm", "rope")


def csv_rows(file: Path) -> list[dict[str, str]]:
    """Rows of a CSV file by the names of their columns."""
    with file.open(newline="", encoding="utf-8") as lines:
        return list(csv.DictReader(lines))


def temporal_attention_table(rows: Sequence[Row]) -> str:
    """`temporal_attention_<gpu>.csv`: our share of copy bandwidth and the best of the others."""
    titles = ("GPU", "B F S N D", "Norm, RoPE", "Ours, ms", "Share of copy", "Best other", "Faster")
    lines = []
    for (gpu, *shape), found in _grouped(rows, ("gpu", *SHAPE)):
        ours = next(row for row in found if row["provider"] == OURS)
        others = [row for row in found if row["provider"] != OURS]
        best = min(others, key=median_ms, default=None)
        lines.append(
            (
                gpu,
                " ".join((*shape[:5], shape[5])),
                "yes" if shape[6] == "True" else "no",
                f"{median_ms(ours):.3f}",
                f"{100 * float(ours['share_of_copy']):.1f}%",
                "–" if best is None else f"{best['provider']}, {median_ms(best):.3f} ms",
                "–" if best is None else f"{median_ms(best) / median_ms(ours):.2f}×",
            )
        )
    command = "python -m reelserve.kernels.benchmarks.bench_temporal_attention"
    return f"{table(titles, lines)}\n\n{_measured(rows, command)}"


def denoiser_step(rows: Sequence[Row]) -> str:
    """`denoiser_step_<gpu>.csv`: a step with the op and with SDPA."""
    titles = ("GPU", "Model", "B F H W", "Compiled", "SDPA, ms", "Fused, ms", "Faster")
    lines = []
    for (gpu, model, *shape, compiled), found in _grouped(
        rows, ("gpu", "model", "B", "F", "H", "W", "compiled")
    ):
        by = {row["attention"]: median_ms(row) for row in found}
        if by.keys() >= {"fused", "sdpa"}:
            yes = "yes" if compiled == "True" else "no"
            gain = f"{by['sdpa'] / by['fused']:.2f}×"
            times = (f"{by['sdpa']:.1f}", f"{by['fused']:.1f}", gain)
            lines.append((gpu, model, " ".join(shape), yes, *times))
    command = "python -m reelserve.kernels.benchmarks.bench_denoiser_step"
    return f"{table(titles, lines)}\n\nRandom weights. {_measured(rows, command)}"


KERNEL_WRITERS: dict[str, Callable[[Sequence[Row]], str]] = {
    "temporal_attention": temporal_attention_table,
    "denoiser_step": denoiser_step,
}


def _grouped(
    rows: Iterable[Row], names: Sequence[str]
) -> Iterable[tuple[tuple[str, ...], list[Row]]]:
    groups: dict[tuple[str, ...], list[Row]] = {}
    for row in rows:
        groups.setdefault(tuple(row[name] for name in names), []).append(row)
    return groups.items()


def median_ms(row: Row) -> float:
    """Median of a row's calls."""
    return float(row["p50_ms"])


def _measured(rows: Sequence[Row], command: str) -> str:
    places = {
        f"{row['gpu']}, driver {row['driver']}, torch {row['torch']}, triton {row['triton']}, "
        f"commit {short_commit(row['git_sha'])}"
        for row in rows
    }
    return f"Measured by `{command}` on {'; '.join(sorted(places))}."
