"""Peak memory of a tree of processes, from /proc."""

from __future__ import annotations

import contextlib
import threading
from collections import defaultdict
from pathlib import Path
from types import TracebackType

PROC = Path("/proc")
SAMPLE_S = 0.25
BYTES_PER_KIB = 1024


def descendants(root: int) -> list[int]:
    """Process ids of the children of `root`, their children and so on, without `root`."""
    children = defaultdict(list)
    for stat in PROC.glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            # The name, in brackets, may hold anything; the parent is the second field after it.
            parent = int(stat.read_text(errors="replace").rpartition(")")[2].split()[1])
            children[parent].append(int(stat.parent.name))
    found, unseen = [], [root]
    while unseen:
        new = children[unseen.pop()]
        found += new
        unseen += new
    return found


def proportional_bytes(pid: int) -> int:
    """Proportional set size of a process, a shared page counted in parts; 0 if it has ended."""
    with contextlib.suppress(OSError):
        for line in (PROC / str(pid) / "smaps_rollup").read_text().splitlines():
            if line.startswith("Pss:"):
                return int(line.split()[1]) * BYTES_PER_KIB
    return 0


def tree_bytes(root: int) -> int:
    """Proportional set size of a process and all its descendants."""
    return sum(map(proportional_bytes, [root, *descendants(root)]))


class PeakMemory:
    """Samples the memory of every descendant of a process while the block runs.

    Args:
        root: Process id; its own memory does not count.
    """

    def __init__(self, root: int) -> None:
        self._root = root
        self.peak_bytes = 0
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._sample, daemon=True)

    def __enter__(self) -> PeakMemory:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._done.set()
        self._thread.join()

    def _sample(self) -> None:
        last = False
        while not last:
            last = self._done.wait(SAMPLE_S)
            total = sum(proportional_bytes(pid) for pid in descendants(self._root))
            self.peak_bytes = max(self.peak_bytes, total)
