"""Engines: what an exported stage runs on."""

from __future__ import annotations

import importlib
from functools import lru_cache
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from reelserve.export.stages import ExportStage, Precision, Target
from reelserve.pipeline.extras import install_advice

__all__ = ["ENGINES", "Engine", "EngineError", "get_engine"]


class EngineError(ValueError):
    """An engine cannot be used here, or cannot build what was asked; the message says why."""


class Engine(Protocol):
    """Builds and runs the graph of a stage. It can be pickled, to build in another process."""

    name: str
    """Name in the option `--engine`."""
    config_name: str
    """Name in `configs/<config_name>.pbtxt` of each stage; empty: `config.pbtxt` itself."""
    file_name: str
    """Name of the graph in a stage's version folder."""
    precisions: tuple[Precision, ...]
    """Precisions that it can build; the first is the default."""

    def check(self, precision: Precision) -> None:
        """Raises `EngineError` if it is not installed, or cannot build this precision here.

        Called before anything is loaded.
        """
        ...

    def target(self, precision: Precision) -> Target:
        """Precision and device that a stage is loaded for, to be built and compared."""
        ...

    def architecture(self) -> str:
        """Hardware that graphs are bound to, for example `sm_90`; empty where they run anywhere."""
        ...

    def versions(self) -> dict[str, str]:
        """Versions of the libraries that shape the graph."""
        ...

    def bound_versions(self) -> dict[str, str]:
        """Libraries that a server must have in the same version, empty where any will do.

        Names are those that `importlib.metadata.version` takes; values are what it gives.
        """
        ...

    def build(self, stage: ExportStage, path: Path) -> None:
        """Writes the graph of a stage.

        Args:
            stage: Its example inputs and module are on the target's device.
            path: Named `file_name`, in a folder for this graph alone. Files beside it that the
                graph refers to are kept with it.
        """
        ...

    def checked_file(self) -> str:
        """File that `run` runs: `file_name`, or what it was made from where it cannot run here."""
        ...

    def run(self, path: Path, inputs: dict[str, NDArray]) -> list[NDArray[np.generic]]:
        """Runs a graph once; for checking it, not for serving.

        Args:
            path: Graph to run.
            inputs: Arrays in the host's memory, by tensor name.
        """
        ...

    def release(self) -> None:
        """Forgets the graphs that `run` has loaded."""
        ...


ENGINES: dict[str, tuple[str, str, tuple[str, ...]]] = {
    "onnxruntime": ("onnx.engine", "OnnxRuntimeEngine", ()),
    "onnxruntime-gpu": ("onnx.engine", "OnnxRuntimeGpuEngine", ()),
    "onnxruntime-node": ("onnx.engine", "OnnxRuntimeEngine", ("node",)),
    "onnxruntime-inlined": ("onnx.engine", "OnnxRuntimeEngine", ("inlined",)),
    "pytorch": ("aot_inductor", "AotInductorEngine", ()),
    "tensorrt": ("tensorrt.engine", "TensorRTEngine", ()),
}
"""Engines by their name in the option `--engine`: module in this package, class, its arguments."""


@lru_cache
def get_engine(name: str) -> Engine:
    """An engine; its module is imported when it is first asked for.

    Raises:
        KeyError: If there is none of this name.
        EngineError: If a library that it is made of is not installed.
    """
    module, factory, arguments = ENGINES[name]
    try:
        found = importlib.import_module(f"{__name__}.{module}")
    except ModuleNotFoundError as error:
        raise EngineError(
            f"engine {name}: {error.name} is not installed; it comes with "
            f"{install_advice(error.name or '', 'export')}"
        ) from None
    engine: Engine = getattr(found, factory)(*arguments)
    return engine
