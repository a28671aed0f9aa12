"""Engines: what an exported stage runs on."""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from reelserve.export.engines.onnx import OnnxRuntimeEngine
from reelserve.export.stages import ExportStage, Precision, Target

__all__ = ["ENGINES", "Engine", "EngineError"]


class EngineError(ValueError):
    """An engine cannot be used here, or cannot build what was asked; the message says why."""


class Engine(Protocol):
    """Builds and runs the graph of a stage."""

    name: str
    """As in the option `--engine`."""
    config_name: str
    """Of `configs/<config_name>.pbtxt` beside each stage's config; empty: `config.pbtxt` itself."""
    file_name: str
    """Of the graph in a stage's version folder."""
    precisions: tuple[Precision, ...]
    """That it can build."""

    def check(self, precision: Precision) -> None:
        """Raises `EngineError` if it is not installed, or cannot build this precision here."""
        ...

    def target(self, precision: Precision) -> Target:
        """What a stage is loaded for, to be built and compared."""
        ...

    def architecture(self) -> str:
        """What the graphs are bound to, for example `sm_90`; empty where they run anywhere."""
        ...

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
