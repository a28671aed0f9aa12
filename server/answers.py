"""Finished clips that answer equal requests for a while, in memory that all processes share."""

from __future__ import annotations

import contextlib
import hashlib
import os
import time
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
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
        folder: Of the board.
        keep_s: How long each is kept; 0 keeps none.
    """

    def __init__(self, folder: Path, keep_s: float) -> None:
        self._folder, self._keep_s = folder, keep_s

    def key(self, request: Mapping[str, NDArray[Any]]) -> str | None:
        """The fingerprint of a request; None where nothing is kept."""
        return fingerprint(request) if self._keep_s else None

    def find(self, key: str | None) -> Tensors | None:
        """The clip of an equal request, if there is one."""
        if key is None:
            return None
        self._forget_old()
        with contextlib.suppress(FileNotFoundError), np.load(self._path(key)) as kept:
            return {name: np.array([kept[name].tobytes()], np.object_) for name in kept.files}
        return None

    def keep(self, key: str | None, outputs: Tensors) -> None:
        """Keeps a clip."""
        if key is None:
            return
        partial = self._folder / f"keeping.{uuid.uuid4().hex}.npz"
        arrays = {name: np.frombuffer(array[0], np.uint8) for name, array in outputs.items()}
        np.savez(partial, **arrays)
        partial.replace(self._path(key))

    def claim(self, key: str | None) -> bool:
        """Whether this process is the one to draw the clip; others wait for its answer."""
        if key is None:
            return True
        path = self._folder / f"drawing.{key}"
        try:
            with path.open("x") as file:
                file.write(str(os.getpid()))
        except FileExistsError:
            if not _lives(path):
                # Whoever drew it died; the next look takes the claim.
                path.unlink(missing_ok=True)
            return False
        return True

    def drawn(self, key: str | None) -> None:
        """Takes the claim back: there is an answer now, or there will be none."""
        if key is not None:
            (self._folder / f"drawing.{key}").unlink(missing_ok=True)

    def _path(self, key: str) -> Path:
        return self._folder / f"answer.{key}.npz"

    def _forget_old(self) -> None:
        paths = []
        for path in self._folder.glob("answer.*"):
            with contextlib.suppress(FileNotFoundError):
                paths.append((path.stat().st_mtime, path))
        paths.sort(reverse=True)
        for index, (written, path) in enumerate(paths):
            if index >= MAX_ANSWERS or time.time() - written > self._keep_s:
                path.unlink(missing_ok=True)


def _lives(path: Path) -> bool:
    """Whether the process whose number stands in a file runs; one being written counts."""
    try:
        pid = path.read_text()
    except FileNotFoundError:
        return True
    return not pid or Path(f"/proc/{pid}").exists()
