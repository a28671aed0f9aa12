"""Writes the few figures that matter most as one Markdown table, each from its own results file."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from reelserve.tools.figures.gpu import clip_shape
from reelserve.tools.figures.kernels import OURS, csv_rows, median_ms
from reelserve.tools.figures.tables import Results, percent, short_commit, table, when

GPU = "nvidia_h100_80gb_hbm3"
"""Files of the GPU figures end in it."""
SHAPE = ("1", "31", "1536", "20", "128")
"""B, F, S, N, D of the 3B denoiser at 768×512."""
NOT_MEASURED = ("–", "not measured yet")


def summary(results: Path) -> str:
    """A row for each of `ROWS`.

    Args:
        results: Folder of results files; a row whose file is missing says so.
    """
    rows = []
    for title, name, row in ROWS:
        file = results / name
        read = csv_rows if file.suffix == ".csv" else _read_json
        rows.append((title, *(row(read(file)) if file.exists() else NOT_MEASURED)))
    return table(("What", "Measured", "Where, commit, date"), rows)


def _read_json(file: Path) -> Any:
    return json.loads(file.read_text(encoding="utf-8"))


def _served(name: str) -> Callable[[Results], tuple[str, str]]:
    """Row of a model of the GPU benchmark, at the load that it serves most clips at."""

    def row(results: Results) -> tuple[str, str]:
        model = next(model for model in results["models"] if model["model"] == name)
        return (
            f"**{model['videos_per_s']:.2f} videos per second**, p95 {model['p95_s']:.1f} s "
            f"({clip_shape(model)}, {model['steps']} steps, {model['weights']} weights)",
            f"one {results['gpu']}, {when({**results, 'commit': model['commits'][-1]})}",
        )

    return row


def _prompts(results: Results) -> tuple[str, str]:
    one, two = results["held_out"], results["held_out_two_objects"]
    return (
        f"**{percent(one['all_right'])}** of {one['num_prompts']} with one object, "
        f"**{percent(two['all_right'])}** of {two['num_prompts']} with two",
        f"{results['hardware']}, {when(results)}",
    )


def _attention(rows: Sequence[dict[str, str]]) -> tuple[str, str]:
    found = [
        row
        for row in rows
        if tuple(row[name] for name in ("B", "F", "S", "N", "D")) == SHAPE and row["rope"] == "True"
    ]
    ours = next(row for row in found if row["provider"] == OURS)
    best = min((row for row in found if row["provider"] != OURS), key=median_ms)
    return (
        f"**{percent(float(ours['share_of_copy']))}** of copy bandwidth, "
        f"{median_ms(best) / median_ms(ours):.1f}× as fast as PyTorch's best",
        f"{ours['gpu']}, commit {short_commit(ours['git_sha'])}",
    )


def _cancels(results: Results) -> tuple[str, str]:
    runs = [seconds for one in results["cancels"] for seconds in one["runs_s"]]
    steps = [seconds for one in results["cancels"] for seconds in one["steps_s"]]
    return (
        f"at most **{max(runs):.2f} s** in {len(runs)} trials, with steps of up to "
        f"{max(steps):.2f} s",
        f"{results['cpu']}, {results['cores']} cores, {when(results)}",
    )


def _faults(results: Sequence[Results]) -> tuple[str, str]:
    right = sum(row["as_expected"] for row in results)
    last = max(results, key=lambda row: str(row["date"]))
    return (
        f"**{right} of {len(results)}** as expected, {sum(row['lost'] for row in results)} "
        "requests without an answer",
        f"{last['cpu']}, {last['cores']} cores, {_commits(results)}{when(last)}",
    )


def _commits(rows: Sequence[Results]) -> str:
    """What stands before the last commit where the rows were measured at several."""
    count = len({row["commit"] for row in rows})
    return f"{count} commits, last: " if count > 1 else ""


ROWS: tuple[tuple[str, str, Callable[[Any], tuple[str, str]]], ...] = (
    ("LTX-Video 2B, 10 s clips", f"bench_gpu_{GPU}.json", _served("ltx-2b")),
    ("Our denoiser at 10B, 10 s clips", f"bench_gpu_{GPU}.json", _served("bundled-10b")),
    ("Prompts drawn right, combinations never trained on", "evaluation.json", _prompts),
    (
        "Temporal attention, with norm and rotary embedding",
        f"temporal_attention_{GPU}.csv",
        _attention,
    ),
    ("From a caller that leaves to its place free", "serving.json", _cancels),
    ("Ways to break the server, each tried", "faults.json", _faults),
)
"""Title, results file and what makes the row."""
