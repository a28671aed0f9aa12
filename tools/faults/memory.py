"""Whether the memory of a server grows."""

from __future__ import annotations

import statistics

WARM_UP_SHARE = 0.2
"""First part of the samples, which is left out: caches and pools fill."""
WINDOW_SHARE = 0.25
"""Part of the samples whose median is compared, since memory goes up and down with the batch."""
MAX_GROWTH = 0.02
MIN_SAMPLES = 8


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
