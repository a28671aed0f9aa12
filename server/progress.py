"""What the stages and the front end of a server tell each other about a clip: files in a folder.

Every stage is a process of its own, and Triton has no channel between two of them but a request
and its answer. The front end makes a folder for each start, names it to the stages in an
environment variable, and opens a file for each clip under the clip's key, which it also sends as
the request id. Stages append to that file what has ended; a second file says that nobody waits any
more. Triton served without a front end has no folder: nothing is told then.
"""

from __future__ import annotations

import contextlib
import os
import re
import time
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from reelserve.pipeline.atomic_file import replaced_file
from reelserve.server.errors import ClipCancelledError

VARIABLE = "REELSERVE_PROGRESS"
KEY = re.compile(r"[0-9a-f]{32}")
"""What a clip's key looks like; any other request id is somebody else's."""
LATENTS_RANK = 4


@dataclass(frozen=True)
class StageEnded:
    """A stage has ended; moments are on the monotonic clock, which all processes share."""

    stage: str
    began: float
    ended: float


@dataclass(frozen=True)
class Stepped:
    """A denoising step has ended; moments as in `StageEnded`, which tell no two steps apart."""

    step: int
    steps: int
    began: float = field(default=0.0, compare=False)
    ended: float = field(default=0.0, compare=False)


@dataclass(frozen=True)
class PreviewLeft:
    """There are latents for a first picture."""


Entry = StageEnded | Stepped | PreviewLeft


class ProgressFolder:
    """The files of one start.

    Nothing here fails a clip: what cannot be written, or was damaged, is not told.

    Args:
        path: The folder; None tells nothing.
    """

    def __init__(self, path: Path | None) -> None:
        self._path = path

    @classmethod
    def from_environment(cls) -> ProgressFolder:
        """The folder that the front end has named to this stage."""
        named = os.environ.get(VARIABLE)
        return cls(Path(named) if named else None)

    def open_clip(self, key: str) -> None:
        """Lets stages tell about a clip from now on."""
        self._touch(key, "log")

    def stage_ended(self, key: str, stage: str, began: float) -> None:
        """Says that a stage has ended, and when it began."""
        self._append(key, f"ended {stage} {began:.6f} {time.monotonic():.6f}\n")

    def stepped(self, key: str, step: int, steps: int, began: float) -> None:
        """Says that a denoising step has ended, and when it began."""
        self._append(key, f"step {step} {steps} {began:.6f} {time.monotonic():.6f}\n")

    def leave_preview(self, key: str, latents: NDArray[np.float32]) -> None:
        """Leaves latents `[C, F, H, W]` from which a first picture can be drawn."""
        log, path = self._file(key, "log"), self._file(key, "npy")
        if log is None or path is None or not log.exists():
            return
        with contextlib.suppress(OSError):
            with replaced_file(path) as partial:
                np.save(partial, latents)
            self._append(key, "preview\n")

    def cancel(self, key: str) -> None:
        """Says that nobody waits for a clip any more."""
        self._touch(key, "cancel")

    def is_cancelled(self, key: str) -> bool:
        """Whether somebody said so: the one signal by which stages learn that a clip is dropped."""
        path = self._file(key, "cancel")
        return path is not None and path.exists()

    def check_not_cancelled(self, key: str) -> None:
        """Raises `ClipCancelledError` if nobody waits for a clip any more."""
        if self.is_cancelled(key):
            raise ClipCancelledError("the request was cancelled")

    def read(self, key: str) -> list[Entry]:
        """What was told about a clip, in order; lines that make no sense are left out."""
        path = self._file(key, "log")
        try:
            lines = path.read_text(errors="replace").splitlines() if path is not None else []
        except OSError:
            return []
        return [entry for entry in map(_entry, lines) if entry is not None]

    def take_preview(self, key: str) -> NDArray[np.float32] | None:
        """Latents that were left, once; None if there are none."""
        path = self._file(key, "npy")
        latents: NDArray[np.float32] | None = None
        if path is not None:
            with contextlib.suppress(OSError, ValueError, EOFError):
                latents = np.load(path, allow_pickle=False)
            with contextlib.suppress(OSError):
                path.unlink(missing_ok=True)
        if latents is None or latents.ndim != LATENTS_RANK or latents.dtype != np.float32:
            return None
        return latents

    def forget(self, key: str) -> None:
        """Removes what is left of a clip: all files that bear its key."""
        if self._path is None or not KEY.fullmatch(key):
            return
        with contextlib.suppress(OSError):
            for path in self._path.glob(f"*{key}.*"):
                path.unlink(missing_ok=True)

    def _append(self, key: str, line: str) -> None:
        path = self._file(key, "log")
        if path is None:
            return
        # Not created: the front end may have forgotten the clip. One write of a short line to a
        # file that is open for appending is whole, whoever else writes.
        with contextlib.suppress(OSError):
            descriptor = os.open(path, os.O_WRONLY | os.O_APPEND)
            try:
                os.write(descriptor, line.encode())
            finally:
                os.close(descriptor)

    def _touch(self, key: str, ending: str) -> None:
        path = self._file(key, ending)
        if path is not None:
            with contextlib.suppress(OSError):
                path.touch(mode=0o600)

    def _file(self, key: str, ending: str) -> Path | None:
        if self._path is None or not KEY.fullmatch(key):
            return None
        return self._path / f"{key}.{ending}"


def _entry(line: str) -> Entry | None:
    with contextlib.suppress(ValueError):
        match line.split(" "):
            case ["ended", stage, began, ended]:
                return StageEnded(stage, float(began), float(ended))
            case ["step", step, steps, began, ended]:
                return Stepped(int(step), int(steps), float(began), float(ended))
            case ["preview"]:
                return PreviewLeft()
    return None
