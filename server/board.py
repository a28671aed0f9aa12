"""What the processes of one server tell each other about a clip while it is drawn.

Every stage is a process of its own, and Triton has no channel between two of them but a request
and its answer. So `video_diffusion` leaves here how far a clip is, and finds here that nobody
waits for it any more: small files in memory, named by the clip's key.
"""

from __future__ import annotations

import os
import shutil
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

SHARED_MEMORY = Path("/dev/shm")
FOLDER_PREFIX = "reelserve-board-"


@dataclass(frozen=True)
class StepReport:
    """How far a clip is.

    Args:
        step: Denoising steps taken.
        steps: Of how many.
    """

    step: int
    steps: int


class Board:
    """The files of one server.

    Args:
        folder: Created where missing, for this user alone.
    """

    def __init__(self, folder: Path) -> None:
        folder.mkdir(mode=0o700, exist_ok=True)
        self.folder = folder

    @classmethod
    def of_server(cls, pid: int) -> Board:
        """The board of the `tritonserver` with this process id; its stages are its children."""
        return cls(board_folder(pid))

    def report(self, key: str, step: int, steps: int) -> None:
        """Says how far a clip is."""
        self._write(f"{key}.step", f"{step} {steps}".encode())

    def read(self, key: str) -> StepReport | None:
        """How far a clip is; None before its first step."""
        try:
            step, steps = (self.folder / f"{key}.step").read_text().split()
        except FileNotFoundError:
            return None
        return StepReport(int(step), int(steps))

    def leave_preview(self, key: str, latents: NDArray[np.float32]) -> None:
        """Leaves latents `[C, F, H, W]` from which a first picture can be drawn."""
        partial = self.folder / f"{key}.partial.npy"
        np.save(partial, latents)
        partial.replace(self.folder / f"{key}.preview.npy")

    def take_preview(self, key: str) -> NDArray[np.float32] | None:
        """Latents that were left, once; None if there are none."""
        path = self.folder / f"{key}.preview.npy"
        try:
            latents: NDArray[np.float32] = np.load(path)
        except FileNotFoundError:
            return None
        # The clip may have ended since, and everything of it been forgotten.
        path.unlink(missing_ok=True)
        return latents

    def cancel(self, key: str) -> None:
        """Says that nobody waits for the clip any more."""
        self._write(f"{key}.cancel", b"")

    def is_cancelled(self, key: str) -> bool:
        """Whether somebody said so."""
        return (self.folder / f"{key}.cancel").exists()

    def forget(self, key: str) -> None:
        """Removes what is left of a clip."""
        for ending in ("step", "preview.npy", "cancel"):
            (self.folder / f"{key}.{ending}").unlink(missing_ok=True)

    def _write(self, name: str, content: bytes) -> None:
        # A reader sees the old content or the new one, never half of it.
        partial = self.folder / f"{name}.{os.getpid()}"
        partial.write_bytes(content)
        partial.replace(self.folder / name)


def board_folder(pid: int) -> Path:
    """Folder of the board of the server with this process id."""
    return SHARED_MEMORY / f"{FOLDER_PREFIX}{pid}"


def remove_board(pid: int) -> None:
    """Removes the board of a server that has ended."""
    shutil.rmtree(board_folder(pid), ignore_errors=True)
