"""Builds a stage as a TensorRT plan.

With full TensorRT a plan is built for the GPU at hand and checked on it. Its edition for RTX GPUs
builds without a GPU; where the plan cannot run, the check runs the graph that it was built from.
What differs between the libraries is in `runtimes/tensorrt_editions.py`.
"""

from __future__ import annotations

import copy
import dataclasses
import importlib
from pathlib import Path

import numpy as np
import onnx_ir
import onnxscript
import torch
from numpy.typing import NDArray

from reelserve.export.engines import EngineError
from reelserve.export.engines.onnx.engine import OnnxRuntimeEngine
from reelserve.export.engines.onnx.older_opset import OpsetError
from reelserve.export.engines.stage_graph import graph_spec
from reelserve.export.engines.tensorrt.builder import PlanBuilder, PlanReport
from reelserve.export.engines.tensorrt.graph import (
    data_file,
    widen_file,
    with_fixed_dims,
    write_graph,
)
from reelserve.export.stages import DTYPES, ExportStage, Precision, Target
from reelserve.runtimes.graph_spec import GraphSpec
from reelserve.runtimes.tensorrt_plan import (
    TensorRTError,
    TensorRTLibrary,
    TensorRTPlan,
    find_library,
)

GRAPH_FILE = "graph.onnx"
"""Beside a plan that cannot run on the machine that built it; BF16 is FP32 in it."""
PLUGIN_MODULE = "reelserve.kernels.tensorrt_plugin"
PORTABLE = ("SM80", "SM89")
"""What is built for without a GPU."""
MAX_BATCH = {"denoiser": 2}
"""Rows of a batch; 1 where left out. One guided clip; a step of a large model fills the GPU."""
CACHE_FOLDER = Path("build") / "tensorrt"


class TensorRTEngine:
    """Builds `model.plan`.

    Args:
        capabilities: GPUs that the edition for RTX GPUs builds for; None: the one at hand, or
            `PORTABLE` without one that it runs on.
        cache_folder: For the times that full TensorRT measures.
    """

    name = "tensorrt"
    config_name = "tensorrt"
    file_name = "model.plan"
    precisions: tuple[Precision, ...] = ("bf16", "fp16", "fp32")

    def __init__(
        self, capabilities: tuple[str, ...] | None = None, cache_folder: Path = CACHE_FOLDER
    ) -> None:
        self._capabilities, self._cache_folder = capabilities, cache_folder
        self._plan: tuple[tuple[Path, int], TensorRTPlan] | None = None
        self._graphs = OnnxRuntimeEngine()

    def check(self, precision: Precision) -> None:
        """Refuses what the installed library cannot build here."""
        library, capabilities = self._library, self.capabilities()
        if precision not in library.edition.precisions:
            raise EngineError(
                f"precision is {precision}; engine tensorrt with {library.name} {library.version} "
                f"has {', '.join(library.edition.precisions)}"
            )
        if not library.edition.any_gpu and gpu_capability() is None:
            raise EngineError(
                "tensorrt builds for the GPU at hand, and torch sees none; tensorrt-rtx builds "
                "without one"
            )
        unknown = set(capabilities) - library.capabilities
        if unknown:
            raise EngineError(
                f"compute capability is {', '.join(sorted(unknown))}; {library.name} "
                f"{library.version} has {', '.join(sorted(library.capabilities))}"
            )
        if precision == "bf16" and "SM75" in capabilities:
            raise EngineError("precision is bf16; GPUs of sm_75 have none: use fp16 or fp32")

    @property
    def _library(self) -> TensorRTLibrary:
        try:
            return find_library()
        except TensorRTError as error:
            raise EngineError(f"engine tensorrt: {error}") from None

    def target(self, precision: Precision) -> Target:
        """The GPU where the plan runs on it, else the CPU."""
        return Target(precision, "cuda" if self.runs_here() else "cpu")

    def runs_here(self) -> bool:
        """Whether there is a GPU that runs the plans."""
        gpu = gpu_capability()
        if gpu is None or not self._library.edition.any_gpu:
            return gpu is not None
        return gpu in (self._capabilities or self._library.capabilities)

    def capabilities(self) -> tuple[str, ...]:
        """What to ask the edition for RTX GPUs for; empty with full TensorRT."""
        if not self._library.edition.any_gpu:
            return ()
        if self._capabilities is not None:
            return self._capabilities
        gpu = gpu_capability()
        return (gpu,) if gpu and self.runs_here() else PORTABLE

    def architecture(self) -> str:
        """Architecture of the GPU, for example `sm_90`; several are joined, `sm_80+sm_89`."""
        gpu = gpu_capability()
        names = self.capabilities() or ((gpu,) if gpu else ())
        return "+".join(f"sm_{name.removeprefix('SM')}" for name in names)

    def versions(self) -> dict[str, str]:
        """Versions of the libraries that shape graph and plan."""
        return {
            "torch": torch.__version__,
            "onnxscript": onnxscript.__version__,
            "onnx_ir": onnx_ir.__version__,
            "opset": str(self._library.edition.opset),
            self._library.name: self._library.version,
        }

    def bound_versions(self) -> dict[str, str]:
        """A plan is taken by the version that has built it."""
        return {self._library.distribution: self._library.version}

    def build(self, stage: ExportStage, path: Path) -> None:
        """Builds a plan.

        Args:
            stage: Stage to build, on the target's device.
            path: The plan to write. A graph goes beside it where the plan cannot run here.

        Raises:
            EngineError: If the library refuses it, or the plan is not what the contract says.
        """
        self.report(stage, path)

    def report(self, stage: ExportStage, path: Path) -> PlanReport:
        """Builds a plan as `build` does, and says what it is."""
        try:
            return self._build(stage, path)
        except (TensorRTError, OpsetError) as error:
            raise EngineError(f"engine tensorrt: {error}") from None

    def write_graph(self, stage: ExportStage, path: Path) -> int:
        """Writes the graph that a stage's plan is built from, as this library takes it.

        Args:
            stage: To trace.
            path: The ONNX file to write.

        Returns:
            Nodes of the plugin for temporal attention.

        Raises:
            TensorRTError: If the stage computes on UINT8.
            OpsetError: If it has an operator that the library's operator set lacks.
        """
        edition, fixed = self._library.edition, with_fixed_dims(stage)
        # Frames, heads and width are compiled into the plugin.
        plugin = edition.ahead_of_time_plugins and not any(fixed.free_dims.values())
        if plugin:
            importlib.import_module(PLUGIN_MODULE)
        if not edition.strongly_typed:
            fixed = in_fp32(fixed)
        return write_graph(fixed, path, plugin=plugin, opset=edition.opset)

    def builder(self) -> PlanBuilder:
        """Reads graphs and builds plans with the installed library."""
        return PlanBuilder(self._library, self.capabilities(), self._cache_folder)

    def _build(self, stage: ExportStage, path: Path) -> PlanReport:
        graph = path.with_name(GRAPH_FILE)
        plugins = self.write_graph(stage, graph)
        half = lowest_precision(stage) == "fp16"
        report = self.builder().build(
            graph, self.plan_spec(stage), self.plan_name(stage), path, half=half
        )
        if report.num_plugins != plugins:
            raise EngineError(
                f"engine tensorrt: {report.name} has {report.num_plugins} layers of the plugin for "
                f"temporal attention; it must have {plugins}"
            )
        if self.runs_here():
            graph.unlink()
            data_file(graph).unlink(missing_ok=True)
        else:
            widen_file(graph)
        return report

    def plan_spec(self, stage: ExportStage) -> GraphSpec:
        """What the plan of a stage takes and gives: batches up to its `MAX_BATCH`."""
        one_row = self._library.edition.one_shape
        spec, rows = graph_spec(stage), 1 if one_row else MAX_BATCH.get(stage.name, 1)
        inputs = (
            dataclasses.replace(given, high=(rows, *given.high[1:]), usual=(rows, *given.usual[1:]))
            for given in spec.inputs
        )
        return dataclasses.replace(spec, inputs=tuple(inputs))

    def plan_name(self, stage: ExportStage) -> str:
        """Model, precision, GPUs and version, for example `denoiser_fp16_sm80+sm89_rtx1.7.1.116`.

        Kept in the plan; its file has the name that Triton's backend looks for.
        """
        library, architecture = self._library, self.architecture().replace("_", "")
        version = f"{library.edition.tag}{library.version}"
        return f"{stage.name}_{lowest_precision(stage)}_{architecture}_{version}"

    def checked_file(self) -> str:
        """The plan, or without a GPU that runs it the graph that it was built from."""
        return self.file_name if self.runs_here() else GRAPH_FILE

    def run(self, path: Path, inputs: dict[str, NDArray]) -> list[NDArray[np.generic]]:
        """Runs a plan once, or where it cannot run the graph that it was built from.

        Args:
            path: Plan to run.
            inputs: Arrays in the host's memory, by tensor name.
        """
        if not self.runs_here():
            return self._graphs.run(path.with_name(GRAPH_FILE), inputs)
        key = (path, path.stat().st_mtime_ns)
        device = torch.device("cuda", torch.cuda.current_device())
        if self._plan is None or self._plan[0] != key:
            self.release()
            self._plan = key, TensorRTPlan(self._library, path, device)
        plan = self._plan[1]
        tensors = {name: torch.from_numpy(value).to(device) for name, value in inputs.items()}
        outputs = plan.run(tensors)
        return [outputs[spec.name].cpu().numpy() for spec in plan.spec.outputs]

    def release(self) -> None:
        """Gives the memory of what `run` has loaded back."""
        self._plan = None
        self._graphs.release()


def gpu_capability() -> str | None:
    """Capability of the first GPU, for example `SM90`; None where torch sees none."""
    if not torch.cuda.is_available():
        return None
    major, minor = torch.cuda.get_device_capability()
    return f"SM{major}{minor}"


def lowest_precision(stage: ExportStage) -> Precision:
    """The lowest precision of a stage's weights: some of its layers may keep FP32."""
    dtypes = {parameter.dtype for parameter in stage.module.parameters()}
    lower: tuple[Precision, ...] = ("bf16", "fp16")
    return next((name for name in lower if DTYPES[name] in dtypes), "fp32")


def in_fp32(stage: ExportStage) -> ExportStage:
    """The stage with its weights, as rounded as they are, in FP32; the original keeps its own.

    On the host: on a GPU torch breaks some layers down to operators that its exporter lacks.
    """
    module = copy.deepcopy(stage.module).float().cpu()
    inputs = tuple(tensor.cpu() for tensor in stage.example_inputs)
    return dataclasses.replace(stage, module=module, example_inputs=inputs)
