"""Two commits measured on one GPU: files `<model>.<which>.<round>.json` in `docs/results/`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from reelserve.tools.figures.tables import short_commit, table

COMPARISONS = ("front_end",)
"""Blocks, and folders of results, of before and after."""
CALLERS = 4
TITLES = ("Model", "Round", "Which", "Commit", "Videos per second, 4 at once", "p95, s")


def comparison(folder: Path) -> str:
    """A row for each round of each model, in the order of the names of the files."""
    rows, last = [], {}
    for file in sorted(folder.glob("*.json")):
        name, which, number = file.stem.split(".")
        last = json.loads(file.read_text())
        (model,) = last["models"]
        loaded = next(level for level in model["levels"] if level["concurrency"] == CALLERS)
        rows.append(
            (
                f"`{name}`, {model['weights']}",
                number,
                which,
                short_commit(last["commit"]),
                f"{loaded['videos_per_s']:.3f}",
                f"{loaded['p95_s']:.2f}",
                f"{model['seconds_at_1']:.2f}",
            )
        )
    return f"{table((*TITLES, 'One at a time, s'), rows)}\n\n{_measured(last)}"


def _measured(results: dict[str, Any]) -> str:
    return (
        f"Measured by `reelserve bench-gpu` of both commits in turn on one {results['gpu']}, the "
        f"same exported stages, {results['cpu']}, {results['cores']} cores, {results['date']}."
    )
