"""Clips that answer equal requests: those being drawn, and finished ones for a while."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Mapping
from typing import Any, Generic, Protocol, TypeVar

from numpy.typing import NDArray

MAX_CLIPS = 64
"""Finished clips kept at most: some ten MB."""
NOT_OF_THE_CLIP = ("PRIORITY",)


class Shareable(Protocol):
    """A clip that several callers may wait for."""

    @property
    def ended_at(self) -> float | None:
        """When it was finished, on the monotonic clock; None before."""


ClipT = TypeVar("ClipT", bound=Shareable)


def fingerprint(tensors: Mapping[str, NDArray[Any]]) -> str | None:
    """Equal for requests that give the same clip; None without a seed, which is drawn anew."""
    if "SEED" not in tensors:
        return None
    parts = [
        (name, array.dtype.str, array.tolist())
        for name, array in sorted(tensors.items())
        if name not in NOT_OF_THE_CLIP
    ]
    return hashlib.sha256(repr(parts).encode()).hexdigest()


class ResponseCache(Generic[ClipT]):
    """Clips by fingerprint.

    Args:
        keep_s: How long each answers after its end; 0 shares nothing.
    """

    def __init__(self, keep_s: float) -> None:
        self._keep_s = keep_s
        self._clips: dict[str, ClipT] = {}

    def find(self, tensors: Mapping[str, NDArray[Any]]) -> ClipT | None:
        """The clip of an equal request, if there is one."""
        if not self._keep_s:
            return None
        self._forget_old()
        return self._clips.get(fingerprint(tensors) or "")

    def add(self, tensors: Mapping[str, NDArray[Any]], clip: ClipT) -> None:
        """Lets equal requests have a clip from now on."""
        key = fingerprint(tensors) if self._keep_s else None
        if key is not None:
            self._clips[key] = clip

    def remove(self, clip: ClipT) -> None:
        """Forgets a clip that will not be finished."""
        self._clips = {key: kept for key, kept in self._clips.items() if kept is not clip}

    def _forget_old(self) -> None:
        now = time.monotonic()
        ended = [(c.ended_at, key) for key, c in self._clips.items() if c.ended_at is not None]
        for index, (ended_at, key) in enumerate(sorted(ended, reverse=True)):
            if index >= MAX_CLIPS or now - ended_at > self._keep_s:
                del self._clips[key]
