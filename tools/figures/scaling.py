"""Writes how one service grows with its GPUs, from `docs/results/scaling_<gpu>.json`."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from reelserve.tools.figures.gpu import decimal, measured_by
from reelserve.tools.figures.tables import Results, percent, short_commit, table

BUSIEST = 2
"""Parts of the server that are named with their cores."""


def scaling(files: Sequence[Results]) -> str:
    """Videos per second against GPUs, and what binds."""
    titles = (
        "Model",
        "GPUs",
        "Videos per second",
        "Efficiency",
        "p95, s",
        "Clips of each Triton",
        "GPUs idle",
        "Cores of the busiest parts",
        "of the front end",
    )
    return _tables(titles, files, _scaling_rows)


def _scaling_rows(results: Results) -> list[tuple[str, ...]]:
    return [
        (
            f"`{row['model']}`",
            str(row["gpus"]),
            decimal(row["videos_per_s"], 3),
            decimal(row["efficiency"], 3),
            decimal(row["p95_s"], 2),
            ", ".join(str(count) for count in row["clips_by_triton"].values()),
            "–" if row["idle_share"] is None else percent(row["idle_share"]),
            _busiest(row["cores"]),
            decimal(row["cores"].get("front end"), 2),
        )
        for row in results["rows"]
    ]


def scaling_deaths(files: Sequence[Results]) -> str:
    """What the death of one Triton costs under load."""
    titles = (
        "Model",
        "GPUs",
        "Clips in flight",
        "Lost, with a hint when to try again",
        "Lost otherwise",
        "Requests sent later that failed",
        "All Tritons ready again after, s",
    )
    return _tables(titles, files, _death_rows)


def _death_rows(results: Results) -> list[tuple[str, ...]]:
    return [
        (
            f"`{death['model']}`",
            str(death["gpus"]),
            str(death["in_flight"]),
            str(death["lost_as"].get("UnavailableError", 0)),
            str(death["lost"] - death["lost_as"].get("UnavailableError", 0)),
            f"{_failed(death['later'])} of {sum(death['later'].values())}",
            decimal(death["back_s"], 1),
        )
        for death in results["deaths"]
    ]


def _tables(
    titles: Sequence[str],
    files: Sequence[Results],
    rows: Callable[[Results], list[tuple[str, ...]]],
) -> str:
    """A table of each file, with what was measured below it."""
    parts = [part for each in files for part in (table(titles, rows(each)), _measured(each))]
    return "\n\n".join(parts)


SCALING_WRITERS: dict[str, Callable[[Sequence[Results]], str]] = {
    "scaling": scaling,
    "scaling_deaths": scaling_deaths,
}
"""Name of a block to what writes it, from all files `scaling_<gpu>.json`."""


def _busiest(cores: Mapping[str, float]) -> str:
    first = sorted(cores.items(), key=lambda item: -item[1])[:BUSIEST]
    return ", ".join(f"`{part}` {busy:.2f}" for part, busy in first) or "–"


def _failed(later: Mapping[str, int]) -> int:
    return sum(count for outcome, count in later.items() if outcome != "clip")


def _measured(results: Results) -> str:
    commits = ", ".join(map(short_commit, results["commits"]))
    return measured_by("bench-scaling", results, commits)
