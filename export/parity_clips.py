"""Results of finished stages on the parity clip, kept for an export that goes on later."""

from __future__ import annotations

import zipfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from reelserve.pipeline.atomic_file import replaced_file
from reelserve.runtimes.repository_files import PARITY_CLIPS


@dataclass(frozen=True)
class ParityClips:
    """Both clips as the next stage takes them.

    Args:
        torch: Computed by torch, from the prompt on.
        graph: Computed by the graphs, from the prompt on.
    """

    torch: NDArray[np.generic]
    graph: NDArray[np.generic]

    def save(self, folder: Path, key: str) -> None:
        """Keeps the results.

        Args:
            folder: Version folder of the stage.
            key: Hash of all that they depend on.
        """
        with replaced_file(folder / PARITY_CLIPS) as partial:
            np.savez(partial, torch=self.torch, graph=self.graph, key=np.array(key))

    @classmethod
    def load(cls, folder: Path, key: str) -> ParityClips | None:
        """Results that were kept under this key; None where there are none."""
        try:
            with np.load(folder / PARITY_CLIPS) as found:
                if str(found["key"]) != key:
                    return None
                return cls(found["torch"], found["graph"])
        except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
            return None
