"""Compiles a stage ahead of time with AOTInductor: a package that holds native code.

Source: the page "AOTInductor: Ahead-Of-Time Compilation for Torch.Export-ed Models" of PyTorch's
documentation.
"""

from __future__ import annotations

import contextlib
import gc
import itertools
import tempfile
import warnings
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch._inductor.package import package_aoti
from torch.export import Dim, ExportedProgram

from reelserve.export.engines import EngineError
from reelserve.export.engines.stage_graph import graph_spec
from reelserve.export.stages import ExportStage, Precision, Target
from reelserve.runtimes.aoti_package import Package, weights_path, write_weights
from reelserve.runtimes.graph_spec import METADATA_KEY, GraphSpec

EMBED_LIMIT_BYTES = 2**30
"""A stage with more weights has them in a file beside its package, see `runtimes/aoti_package.py`.
Below, they are inside, and NVIDIA's own PyTorch backend serves the package as it is."""
MAX_AUTOTUNE = False
"""Whether the compiler tries its own matrix products and convolutions against the libraries': hours
for a large denoiser."""


class AotInductorEngine:
    """Builds `model.pt2` for the first GPU, or for the CPU where there is none."""

    name = "pytorch"
    config_name = "pytorch"
    file_name = "model.pt2"
    precisions: tuple[Precision, ...] = ("fp32", "bf16", "fp16")

    def __init__(self) -> None:
        self._loaded: tuple[tuple[Path, int], Package] | None = None

    def __reduce__(self) -> tuple[type[AotInductorEngine], tuple[()]]:
        # To build in another process; what is loaded here is of no use there.
        return type(self), ()

    def check(self, precision: Precision) -> None:
        """Raises `EngineError` for fp16 without a GPU."""
        if precision == "fp16" and _device() == "cpu":
            raise EngineError(
                "precision is fp16; on a CPU the engine pytorch builds fp32 and bf16: there is no "
                "GPU here"
            )

    def target(self, precision: Precision) -> Target:
        """The device that the package is for."""
        return Target(precision, _device())

    def architecture(self) -> str:
        """Architecture of the GPU, for example `sm_90`; `cpu` without one."""
        if _device() == "cpu":
            return "cpu"
        major, minor = torch.cuda.get_device_capability()
        return f"sm_{major}{minor}"

    def versions(self) -> dict[str, str]:
        """Versions of the libraries that shape the package."""
        versions = {"torch": torch.__version__, "cuda": torch.version.cuda or "none"}
        with contextlib.suppress(metadata.PackageNotFoundError):
            versions["triton"] = metadata.version("triton")
        return versions

    def bound_versions(self) -> dict[str, str]:
        """The loader takes packages of its own version."""
        return {"torch": metadata.version("torch")}

    def build(self, stage: ExportStage, path: Path) -> None:
        """Compiles a stage.

        Args:
            stage: Stage to compile, on the target's device.
            path: The package to write, `*.pt2`. Weights of more than `EMBED_LIMIT_BYTES` are
                written beside it.
        """
        beside = _weight_bytes(stage.module) > EMBED_LIMIT_BYTES
        spec = graph_spec(stage, weights_beside=beside)
        # A folder of its own: the compiler names its folder by the code alone, so two stages that
        # compute the same, built at once, would take each other's metadata.
        with tempfile.TemporaryDirectory(prefix="reelserve-") as scratch:
            files = _compiled(stage, spec, scratch)
            package_aoti(str(path), [file for file in files if isinstance(file, str)])
        # With weights apart, one of the files is no file but a table of them.
        for table in files:
            if not isinstance(table, str):
                write_weights({name: entry[0] for name, entry in table.items()}, weights_path(path))

    def checked_file(self) -> str:
        """The package itself."""
        return self.file_name

    def run(self, path: Path, inputs: dict[str, NDArray]) -> list[NDArray[np.generic]]:
        """Runs a package once for every row of a batch.

        Args:
            path: Package to run. It stays loaded until another one is run or `release` is called.
            inputs: Arrays in the host's memory, by tensor name.

        Raises:
            ValueError: If the package does not take these shapes.
        """
        package = self._package(path)
        outputs = []
        for row in range(len(next(iter(inputs.values())))):
            arrays = {name: array[row : row + 1] for name, array in inputs.items()}
            package.spec.check({name: array.shape for name, array in arrays.items()})
            tensors = [
                torch.from_numpy(np.ascontiguousarray(arrays[spec.name])).to(package.device)
                for spec in package.spec.inputs
            ]
            with torch.no_grad():
                outputs.append([tensor.cpu().numpy() for tensor in package.run(tensors)])
        return [np.concatenate(rows) for rows in zip(*outputs, strict=True)]

    def release(self) -> None:
        """Gives the memory of the loaded package back."""
        self._loaded = None
        gc.collect()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()

    def _package(self, path: Path) -> Package:
        key = (path, path.stat().st_mtime_ns)
        if self._loaded is None or self._loaded[0] != key:
            # First: two packages of many gigabytes have no room.
            self.release()
            self._loaded = key, Package(path, torch.device(_device()))
        return self._loaded[1]


def _compiled(stage: ExportStage, spec: GraphSpec, scratch: str) -> list[Any]:
    """Paths of the files of a package, and weights by name that are to lie beside it.

    Args:
        stage: To compile.
        spec: Names, types and bounds of its tensors.
        scratch: Folder that receives the files.
    """
    with torch.no_grad(), warnings.catch_warnings():
        # PyTorch's own, of its own parts.
        warnings.simplefilter("ignore", FutureWarning)
        program = exported(stage, spec)
        args, kwargs = program.example_inputs
        options = {**_options(spec), "aot_inductor.output_path": scratch}
        files: list[Any] = torch._inductor.aot_compile(
            program.module(check_guards=False), args, kwargs, options=options
        )
        return files


def exported(stage: ExportStage, spec: GraphSpec) -> ExportedProgram:
    """The program of a stage; dimensions with more than one size are free."""
    dynamic_shapes = tuple(
        {
            axis: Dim.DYNAMIC(min=low, max=high)
            for axis, (low, high) in enumerate(zip(given.low, given.high, strict=True))
            if low != high
        }
        for given in spec.inputs
    )
    return torch.export.export(
        stage.module, stage.inputs_at(1), dynamic_shapes=dynamic_shapes, strict=False
    )


def _options(spec: GraphSpec) -> dict[str, Any]:
    """Settings of the compiler.

    Weights are not frozen: freezing folds them into copies of its own in other layouts, which a
    file beside the package cannot hold.
    """
    options: dict[str, Any] = {
        "aot_inductor.package": True,
        "aot_inductor.metadata": {METADATA_KEY: spec.to_json()},
        "max_autotune": MAX_AUTOTUNE,
        # As many threads as the process that loads it has, not the one that compiles it.
        "cpp.dynamic_threads": True,
    }
    if spec.weights_beside:
        options["aot_inductor.package_constants_in_so"] = False
        options["aot_inductor.package_constants_on_disk_format"] = "pickle_weights"
    return options


def _weight_bytes(module: nn.Module) -> int:
    """Size of all weights, each counted once."""
    tensors: list[Tensor] = [*itertools.chain(module.parameters(), module.buffers())]
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors)


def _device() -> str:
    return "cuda" if torch.cuda.is_available() else "cpu"
