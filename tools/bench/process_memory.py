"""Memory of a tree of processes, sampled while something runs."""

from __future__ import annotations

import contextlib
import threading
import time

import psutil

SAMPLE_S = 0.25


def descendants(root: int) -> list[int]:
    """Process ids of the children of `root`, their children and so on, without `root`."""
    with contextlib.suppress(psutil.NoSuchProcess):
        return [process.pid for process in psutil.Process(root).children(recursive=True)]
    return []


def proportional_bytes(pid: int) -> int:
    """Proportional set size of a process, a shared page counted in parts; 0 if it has ended."""
    with contextlib.suppress(psutil.Error):
        return int(psutil.Process(pid).memory_full_info().pss)
    return 0


def tree_bytes(root: int) -> int:
    """Proportional set size of a process and all its descendants."""
    return sum(map(proportional_bytes, [root, *descendants(root)]))


class MemoryTrace:
    """Samples the memory of a process and its descendants while the block runs, and at its end.

    Args:
        root: Process id.
        every_s: Seconds between two samples.
        with_root: Whether the memory of `root` itself counts.
        with_descendants: Whether that of its descendants does.
    """

    def __init__(
        self,
        root: int,
        every_s: float = SAMPLE_S,
        *,
        with_root: bool = True,
        with_descendants: bool = True,
    ) -> None:
        self._root, self._every_s = root, every_s
        self._with_root, self._with_descendants = with_root, with_descendants
        self.samples: list[tuple[float, int]] = []
        """Moment on the monotonic clock, and bytes."""
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._sample, daemon=True)

    @property
    def peak_bytes(self) -> int:
        """The largest sample; 0 before the first."""
        return max((size for _, size in self.samples), default=0)

    def __enter__(self) -> MemoryTrace:
        self._thread.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._done.set()
        self._thread.join()

    def _sample(self) -> None:
        last = False
        while not last:
            last = self._done.wait(self._every_s)
            counted = [self._root] * self._with_root
            counted += descendants(self._root) if self._with_descendants else []
            self.samples.append((time.monotonic(), sum(map(proportional_bytes, counted))))
