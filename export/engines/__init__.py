"""Engines: what an exported stage runs on."""

from __future__ import annotations

import importlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from reelserve.export.stages import ExportStage, Precision, Target

__all__ = ["ENGINES", "Engine", "EngineError"]


class EngineError(ValueError):
    """An engine cannot be used here, or cannot build what was asked; the message says why."""


class Engine(Protocol):
    """Builds and runs the graph of a stage. It can be pickled, to build in another process."""

    name: str
    """As in the option `--engine`."""
    config_name: str
    """Of `configs/<config_name>.pbtxt` beside each stage's config; empty: `config.pbtxt` itself."""
    file_name: str
    """Of the graph in a stage's version folder."""
    precisions: tuple[Precision, ...]
    """That it can build; the first is the default."""

    def check(self, precision: Precision) -> None:
        """Raises `EngineError` if it is not installed, or cannot build this precision here.

        Called before anything is loaded.
        """
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

    def bound_versions(self) -> dict[str, str]:
        """Libraries that a server must have in the same version, empty where any will do.

        By the name that `importlib.metadata.version` takes, with what it gives.
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
            path: Of the graph.
            inputs: By tensor name, in the host's memory.
        """
        ...

    def release(self) -> None:
        """Forgets the graphs that `run` has loaded."""
        ...


@dataclass(frozen=True)
class _Source:
    """Where an engine comes from.

    Args:
        module: In this package; imported when the engine is asked for.
        factory: Its class.
        arguments: Of the class.
        extra: Of this project, with which its libraries are installed.
    """

    module: str
    factory: str
    arguments: tuple[Any, ...] = ()
    extra: str = "export"


class _Engines(Mapping[str, Engine]):
    """Engines by name, each loaded when it is first asked for."""

    def __init__(self, sources: Mapping[str, _Source]) -> None:
        self._sources = sources
        self._loaded: dict[str, Engine] = {}

    def __getitem__(self, name: str) -> Engine:
        """The engine.

        Raises:
            KeyError: If there is none of this name.
            EngineError: If a library that it is made of is not installed.
        """
        source = self._sources[name]
        if name not in self._loaded:
            try:
                module = importlib.import_module(f"{__name__}.{source.module}")
            except ModuleNotFoundError as error:
                raise EngineError(
                    f"engine {name}: {error.name} is not installed; it comes with "
                    f"`pip install 'reelserve[{source.extra}]'`"
                ) from None
            self._loaded[name] = getattr(module, source.factory)(*source.arguments)
        return self._loaded[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._sources)

    def __len__(self) -> int:
        return len(self._sources)


ENGINES: Mapping[str, Engine] = _Engines(
    {
        "onnxruntime": _Source("onnx.engine", "OnnxRuntimeEngine"),
        "onnxruntime-gpu": _Source("onnx.engine", "OnnxRuntimeGpuEngine"),
        "onnxruntime-node": _Source("onnx.engine", "OnnxRuntimeEngine", ("node",)),
        "onnxruntime-inlined": _Source("onnx.engine", "OnnxRuntimeEngine", ("inlined",)),
        "pytorch": _Source("aot_inductor", "AotInductorEngine"),
        "tensorrt": _Source("tensorrt.engine", "TensorRTEngine"),
    }
)
"""By the name that the option `--engine` takes."""
