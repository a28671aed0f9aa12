"""Exports a stage as an ONNX graph for ONNX Runtime."""

from __future__ import annotations

import contextlib
import io
import logging
import warnings
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal

import numpy as np
import onnx_ir
import onnx_ir.passes.common as common_passes
import onnxscript
import onnxscript.optimizer
import torch
from numpy.typing import NDArray
from torch import nn
from torch.export import ExportedProgram

from reelserve.export.engines import EngineError
from reelserve.export.engines.onnx.files import save_graph
from reelserve.export.engines.onnx.masks import give_masks_their_rows
from reelserve.export.engines.onnx.modules import for_onnx_runtime
from reelserve.export.engines.onnx.older_opset import (
    EXPORTED_OPSET,
    OpsetError,
    lower,
    without_fused_ops,
)
from reelserve.export.engines.onnx.temporal_attention import (
    DOMAIN,
    inlined,
    translation_table,
    with_body,
)
from reelserve.export.engines.stage_graph import graph_spec
from reelserve.export.stages import ExportStage, Precision, Target
from reelserve.runtimes.graph_spec import METADATA_KEY
from reelserve.runtimes.onnx_graph import (
    CPU_PROVIDER,
    CUDA_PROVIDER,
    ProviderError,
    check_provider,
    onnxruntime,
    open_graph,
)

TemporalAttentionForm = Literal["standard", "node", "inlined"]
FATAL = 4
"""Highest severity of ONNX Runtime's messages."""
OPSET = 23
"""First operator set with Attention, RMSNormalization and RotaryEmbedding."""


class OnnxRuntimeEngine:
    """Builds `model.onnx` and runs it on the CPU.

    Args:
        temporal_attention: What the denoiser's temporal attention becomes: `standard` operators,
            arranged for ONNX Runtime's CPU kernels; `node`, the fused op, with a body in standard
            operators; or `inlined`, that body in place of the node.
    """

    config_name = ""
    file_name = "model.onnx"
    provider = CPU_PROVIDER

    def __init__(self, temporal_attention: TemporalAttentionForm = "standard") -> None:
        self.temporal_attention = temporal_attention
        standard = temporal_attention == "standard"
        self.name = "onnxruntime" if standard else f"onnxruntime-{temporal_attention}"
        # On a CPU, ONNX Runtime computes fp16 in fp32 and bf16 not at all, so that such a graph
        # could not be checked.
        self.precisions: tuple[Precision, ...] = ("fp32", "fp16") if standard else ("fp32",)

    def check(self, precision: Precision) -> None:
        """Raises `EngineError` if this ONNX Runtime has not the provider."""
        try:
            check_provider(self.provider)
        except ProviderError as error:
            raise EngineError(f"engine {self.name}: {error}") from error

    def target(self, precision: Precision) -> Target:
        """Traced on the CPU whatever runs the graph."""
        return Target(precision)

    def architecture(self) -> str:
        """A graph runs anywhere."""
        return ""

    def versions(self) -> dict[str, str]:
        """Versions of the libraries that shape the graph and that it was checked with."""
        return {
            "torch": torch.__version__,
            "onnxscript": onnxscript.__version__,
            "onnx_ir": onnx_ir.__version__,
            "onnxruntime": onnxruntime.__version__,
            "opset": str(OPSET),
        }

    def bound_versions(self) -> dict[str, str]:
        """A newer ONNX Runtime runs it as well."""
        return {}

    def build(self, stage: ExportStage, path: Path) -> None:
        """Exports a stage; the graph's tensors are named as in the contract.

        Args:
            stage: Its module is traced with its example inputs.
            path: The file to write.
        """
        form = self.temporal_attention
        module = for_onnx_runtime(stage.module, fused=form != "standard")
        model = onnx_model(stage, module, form)
        give_masks_their_rows(model)
        model.metadata_props[METADATA_KEY] = graph_spec(stage).to_json()
        save_graph(model, path)

    def checked_file(self) -> str:
        """The graph itself."""
        return self.file_name

    def run(self, path: Path, inputs: dict[str, NDArray]) -> list[NDArray[np.generic]]:
        """Runs a graph once.

        Args:
            path: Graph to run.
            inputs: Arrays by tensor name.
        """
        return _session(path, path.stat().st_mtime_ns, self.provider).run(None, inputs)

    def release(self) -> None:
        """Forgets the graph that `run` has loaded."""
        _session.cache_clear()


class OnnxRuntimeGpuEngine(OnnxRuntimeEngine):
    """Builds the same graphs, and checks and serves them on an NVIDIA GPU."""

    config_name = "onnxruntime_gpu"
    provider = CUDA_PROVIDER

    def __init__(self) -> None:
        super().__init__()
        self.name = "onnxruntime-gpu"


def onnx_model(
    stage: ExportStage, module: nn.Module, temporal_attention: TemporalAttentionForm
) -> onnx_ir.Model:
    """Traces a module; the graph's tensors are named as in the contract.

    Args:
        stage: Gives example inputs and free dimensions.
        module: Module to trace, with the stage's inputs and outputs.
        temporal_attention: What becomes of the fused op where the module calls it.
    """
    fused = temporal_attention != "standard"
    with _quiet(), torch.no_grad():
        model = _tidy(
            _exported(
                stage,
                module,
                OPSET,
                args=stage.example_inputs,
                dynamic_shapes=_dynamic_dims(stage),
                custom_translation_table=translation_table() if fused else None,
            )
        )
    if DOMAIN not in model.opset_imports:
        return model
    return inlined(model) if temporal_attention == "inlined" else with_body(model)


def older_onnx_model(stage: ExportStage, module: nn.Module) -> onnx_ir.Model:
    """Traces a module as `onnx_model` does, to operator set 17, standard operators and one shape.

    The shape is the usual one, of one row. TensorRT 8.6 overlooks that `Shape` can take a part,
    and where sizes are computed it loses count of dimensions later.

    Raises:
        OpsetError: If the stage has a free size, or an operator that this set lacks.
    """
    free = sorted({name for dims in stage.free_dims.values() for name in dims.values()})
    if free:
        ranges = [f"{name} ({_range(stage, name)})" for name in free]
        raise OpsetError(
            f"stage {stage.name} has sizes that vary: {', '.join(ranges)}; operator set 17 is "
            "written for one size: narrow the limits of requests with --num-frames, --height, "
            "--width or --profile"
        )
    with _quiet(), torch.no_grad():
        program = torch.export.export(module, stage.inputs_at(1), strict=False)
        model = _tidy(_exported(stage, without_fused_ops(program), EXPORTED_OPSET))
        lower(model)
        # What lowering has left over, and what it gave are looked at once more.
        return _tidy(model)


def _range(stage: ExportStage, name: str) -> str:
    found = stage.ranges.get(name)
    return "any" if found is None else f"{found.low} to {found.high}"


def _exported(
    stage: ExportStage, module: nn.Module | ExportedProgram, opset: int, **options: Any
) -> onnx_ir.Model:
    program = torch.onnx.export(
        module,
        dynamo=True,
        opset_version=opset,
        input_names=[tensor.name for tensor in stage.contract.inputs],
        output_names=[tensor.name for tensor in stage.contract.outputs],
        optimize=False,
        verbose=False,
        **options,
    )
    assert program is not None
    return program.model


@lru_cache(maxsize=1)
def _session(path: Path, _changed_ns: int, provider: str) -> onnxruntime.InferenceSession:
    # Its notes on how it arranges a graph for a GPU are no news to who exports; errors are raised.
    onnxruntime.set_default_logger_severity(FATAL)
    options = onnxruntime.SessionOptions()
    options.log_severity_level = FATAL
    # Other stages may be built on the same cores meanwhile.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    return open_graph(path, provider, options=options)


def _tidy(model: onnx_ir.Model) -> onnx_ir.Model:
    """Folds what is constant and drops the exporter's notes, which hold local paths.

    The exporter's own optimiser also rewrites patterns, which takes longer than all the rest and
    finds nothing that ONNX Runtime does not find at load.
    """
    onnxscript.optimizer.fold_constants(model)
    onnxscript.optimizer.remove_unused_nodes(model)
    passes = onnx_ir.passes.Sequential(
        common_passes.CommonSubexpressionEliminationPass(),
        common_passes.LiftConstantsToInitializersPass(),
        common_passes.DeduplicateInitializersPass(),
        common_passes.ClearMetadataAndDocStringPass(),
        common_passes.CheckerPass(),
    )
    return passes(model).model


def _dynamic_dims(stage: ExportStage) -> tuple[dict[int, object], ...]:
    """Free dimensions of each input as torch has them; a shared name is one dimension."""
    names = [
        {0: "batch", **stage.free_dims.get(tensor.name, {})} for tensor in stage.contract.inputs
    ]
    dims = {name: torch.export.Dim.DYNAMIC for shape in names for name in shape.values()}
    return tuple({axis: dims[name] for axis, name in shape.items()} for shape in names)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keeps the exporter's progress lines and its notes on absent optional libraries off screen."""
    loggers = [logging.getLogger(name) for name in ("torch.onnx", "onnxscript")]
    levels = [logger.level for logger in loggers]
    try:
        for logger in loggers:
            logger.setLevel(logging.ERROR)
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
