"""One thing that was broken, what callers saw, and the file that keeps it."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from reelserve.tools.results_file import write_json

MAX_RECOVERY_S = 10.0


@dataclass(frozen=True)
class Fault:
    """What was done and what was seen; the fields are those of the results file.

    Args:
        fault: What was broken.
        expected: What callers should see.
        seen: What they saw.
        recovered_s: Seconds until a request succeeded again; None where nothing is to recover.
        lost: Requests that got neither an answer nor an error.
        as_expected: Whether what was seen is what should be.
    """

    fault: str
    expected: str
    seen: str
    recovered_s: float | None
    lost: int
    as_expected: bool


@dataclass(frozen=True)
class Trial:
    """Something to try.

    Args:
        name: On the command line.
        run: Breaks a server of this model repository and looks.
    """

    name: str
    run: Callable[[Path], Fault]


def read_faults(path: Path) -> dict[str, dict[str, Any]]:
    """Rows of a results file by fault; empty if there is no file.

    Raises:
        ValueError: If the file is not one.
    """
    if not path.exists():
        return {}
    return {row["fault"]: row for row in json.loads(path.read_text())}


def write_fault(path: Path, fault: Fault, provenance: Mapping[str, Any]) -> None:
    """Puts a row into a results file, in place of an earlier one of the same fault.

    Args:
        path: The file, which need not exist.
        fault: What to write.
        provenance: Where and when it was measured; each row says so, since one can be measured
            again alone.
    """
    rows = read_faults(path)
    rows[fault.fault] = {**asdict(fault), **provenance}
    write_json(path, list(rows.values()))


def counted(outcomes: Mapping[str, int]) -> str:
    """Outcomes in words, as `2 × clip, 1 × InternalError`."""
    return ", ".join(f"{count} × {outcome}" for outcome, count in sorted(outcomes.items()))


def recovers(seconds: float | None) -> bool:
    """Whether a recovery came, and soon enough."""
    return seconds is not None and seconds <= MAX_RECOVERY_S


def all_among(outcomes: Iterable[str], allowed: Iterable[str]) -> bool:
    """Whether nothing else was seen, and something was."""
    found = set(outcomes)
    return bool(found) and found <= set(allowed)
