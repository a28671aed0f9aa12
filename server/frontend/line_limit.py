"""How many lines of one kind come into a log."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass

LINES = 20
"""Lines of one kind within `WITHIN_S`; the others are counted."""
WITHIN_S = 10.0

Kind = tuple[str, str]


@dataclass
class _Window:
    began: float
    lines: int = 0


class LineLimit:
    """Counts lines by their kind, of which there must be a bounded number.

    Args:
        lines: Lines of one kind that are let through within a time.
        within_s: Length of that time, seconds.
    """

    def __init__(self, lines: int = LINES, within_s: float = WITHIN_S) -> None:
        self._lines, self._within_s = lines, within_s
        self._windows: dict[Kind, _Window] = {}

    def takes(self, kind: Kind) -> bool:
        """Whether one more line of a kind is written; it is counted either way."""
        window = self._windows.get(kind)
        if window is None:
            window = self._windows[kind] = _Window(time.monotonic())
        window.lines += 1
        return window.lines <= self._lines

    def ended(self, *, all_of_them: bool = False) -> Iterator[tuple[Kind, int, float]]:
        """The kinds of which lines were left out, how many, within how many seconds.

        Args:
            all_of_them: Whether those count whose time has not passed, too.
        """
        now = time.monotonic()
        for kind, window in list(self._windows.items()):
            passed_s = now - window.began
            if all_of_them or passed_s >= self._within_s:
                del self._windows[kind]
                if window.lines > self._lines:
                    yield kind, window.lines - self._lines, passed_s
