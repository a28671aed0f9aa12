"""Whether the memory of a server grows."""

from __future__ import annotations

import statistics
import threading
import time
from types import TracebackType

from reelserve.tools.bench.process_memory import tree_bytes

WARM_UP_SHARE = 0.2
"""Of the whole: caches and pools fill."""
WINDOW_SHARE = 0.25
"""Of the whole: what is compared are medians, since memory goes up and down with the batch."""
MAX_GROWTH = 0.02
MIN_SAMPLES = 8


class MemoryTrace:
    """Samples the memory of a process and its descendants while the block runs.

    Args:
        root: Process id.
        every_s: Seconds between two samples.
    """

    def __init__(self, root: int, every_s: float) -> None:
        self._root, self._every_s = root, every_s
        self.samples: list[tuple[float, int]] = []
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._sample, daemon=True)

    def growth(self) -> float:
        """Growth after warm-up as a share, see `growth`."""
        return growth(self.samples)

    def __enter__(self) -> MemoryTrace:
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
        while not self._done.wait(self._every_s):
            self.samples.append((time.monotonic(), tree_bytes(self._root)))


def growth(samples: list[tuple[float, int]]) -> float:
    """The median of the last window over that of the first after warm-up, less one.

    Args:
        samples: Bytes, each behind the time it was taken at or another measure of progress.

    Raises:
        ValueError: If there are too few to tell.
    """
    if len(samples) < MIN_SAMPLES:
        raise ValueError(f"{len(samples)} samples of memory; at least {MIN_SAMPLES} are needed")
    begin, end = samples[0][0], samples[-1][0]
    after = begin + WARM_UP_SHARE * (end - begin)
    window = WINDOW_SHARE * (end - begin)
    first = [size for moment, size in samples if after <= moment <= after + window]
    last = [size for moment, size in samples if moment >= end - window]
    return statistics.median(last) / statistics.median(first) - 1
