"""Engines: what an exported stage runs on."""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from reelserve.export.engines.onnx import OnnxRuntimeEngine
from reelserve.export.stages import ExportStage

__all__ = ["ENGINES", "Engine"]


class Engine(Protocol):
    """Builds and runs the graph of a stage."""

    name: str
    """As in the option `--engine`."""
    file_name: str
    """Of the graph in a stage's version folder."""

    def versions(self) -> dict[str, str]:
        """Versions of the libraries that shape the graph."""
        ...

    def build(self, stage: ExportStage, path: Path) -> None:
        """Writes the graph of a stage."""
        ...

    def run(self, path: Path, inputs: dict[str, NDArray]) -> list[NDArray[np.generic]]:
        """Runs a graph once; for checking it, not for serving."""
        ...


ENGINES: dict[str, Engine] = {
    engine.name: engine
    for engine in (OnnxRuntimeEngine(), OnnxRuntimeEngine("node"), OnnxRuntimeEngine("inlined"))
}
