"""Finished clips that answer equal requests for a while."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Mapping
from typing import Any

from numpy.typing import NDArray

from reelserve.server.clip_run import Tensors

MAX_ANSWERS = 64
"""Clips kept at most: some ten MB."""
NOT_OF_THE_CLIP = ("PRIORITY",)


def fingerprint(request: Mapping[str, NDArray[Any]]) -> str | None:
    """Equal for requests that give the same clip; None without a seed, which is drawn anew."""
    if "SEED" not in request:
        return None
    parts = [
        (name, array.dtype.str, array.shape, array.tolist())
        for name, array in sorted(request.items())
        if name not in NOT_OF_THE_CLIP
    ]
    return hashlib.sha256(repr(parts).encode()).hexdigest()


class Answers:
    """Clips by fingerprint.

    Args:
        keep_s: How long each is kept; 0 keeps none.
    """

    def __init__(self, keep_s: float) -> None:
        self._keep_s = keep_s
        self._kept: dict[str, tuple[float, Tensors]] = {}

    def find(self, key: str | None) -> Tensors | None:
        """The clip of an equal request, if there is one."""
        now = time.monotonic()
        self._kept = {k: kept for k, kept in self._kept.items() if kept[0] > now}
        return self._kept[key][1] if key in self._kept else None

    def keep(self, key: str | None, outputs: Tensors) -> None:
        """Keeps a clip, and forgets the oldest beyond the limit."""
        if key is None or not self._keep_s:
            return
        self._kept[key] = (time.monotonic() + self._keep_s, outputs)
        while len(self._kept) > MAX_ANSWERS:
            del self._kept[next(iter(self._kept))]
