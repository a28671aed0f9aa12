"""Runs an ONNX graph that a Triton config describes."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from reelserve.runtimes.graph_spec import METADATA_KEY, GraphSpec
from reelserve.runtimes.onnx_graph import onnxruntime, open_graph
from reelserve.server.engines.graph_check import FREE, GraphRanges, TensorRange, require_match
from reelserve.server.engines.session_settings import SessionSettings

TYPES: dict[str, tuple[str, type[np.generic]]] = {
    "tensor(bool)": ("BOOL", np.bool_),
    "tensor(uint8)": ("UINT8", np.uint8),
    "tensor(int8)": ("INT8", np.int8),
    "tensor(int32)": ("INT32", np.int32),
    "tensor(int64)": ("INT64", np.int64),
    "tensor(float16)": ("FP16", np.float16),
    "tensor(float)": ("FP32", np.float32),
    "tensor(double)": ("FP64", np.float64),
}
"""Data types that a graph can have, by ONNX Runtime's names, as Triton and NumPy call them."""


class OnnxSession:
    """One graph, ready to run.

    Args:
        graph: The `model.onnx`.
        config: Triton's model config, parsed from its JSON.
        settings: From the same config.

    Raises:
        FileNotFoundError: If there is no graph.
        ValueError: If graph and config disagree, the provider cannot be used, or there is nothing
            to warm up with.
    """

    def __init__(self, graph: Path, config: Mapping[str, Any], settings: SessionSettings) -> None:
        if not graph.is_file():
            raise FileNotFoundError(f"{graph} is missing; export the checkpoint first")
        self._session = open_graph(
            graph,
            settings.provider,
            device_id=settings.device_id,
            options=_session_options(settings),
        )
        ranges = GraphRanges(
            [_range(node) for node in self._session.get_inputs()],
            [_range(node) for node in self._session.get_outputs()],
            outputs_optional=True,
        )
        require_match(config, ranges, graph.name)
        written = self._session.get_modelmeta().custom_metadata_map.get(METADATA_KEY)
        self._spec = None if written is None else GraphSpec.from_json(written)
        self._outputs = [output["name"] for output in config["output"]]
        self._run_options = onnxruntime.RunOptions()
        if settings.arena_shrinkage:
            self._run_options.add_run_config_entry(
                "memory.enable_memory_arena_shrinkage", settings.arena_shrinkage
            )
        if settings.warm_up:
            self._warm_up()

    def run(self, inputs: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        """Runs the graph once.

        Raises:
            ValueError: If an input is larger than any request of the checkpoint makes it.
        """
        if self._spec is not None:
            self._spec.check_sizes({name: array.shape for name, array in inputs.items()})
        values = self._session.run(self._outputs, dict(inputs), self._run_options)
        return {name: np.asarray(value) for name, value in zip(self._outputs, values, strict=True)}

    def _warm_up(self) -> None:
        """The usual shapes, for which a GPU's library first tries its convolutions: seconds."""
        if self._spec is None:
            raise ValueError(
                "parameter warm_up is 1, and the graph does not tell its usual shapes; it must be "
                "0, or the graph be exported by `reelserve export`"
            )
        types = {node.name: TYPES[node.type][1] for node in self._session.get_inputs()}
        specs = self._spec.inputs
        self.run({spec.name: np.ones(spec.usual, types[spec.name]) for spec in specs})


def _range(node: Any) -> TensorRange:
    """An input or output as ONNX Runtime describes it; a free dimension is a name or None."""
    # A type that Triton does not have here goes by ONNX Runtime's own name.
    dtype, _ = TYPES.get(node.type, (node.type, np.generic))
    fixed = [size if isinstance(size, int) else None for size in node.shape]
    low = tuple(0 if size is None else size for size in fixed)
    high = tuple(FREE if size is None else size for size in fixed)
    return TensorRange(node.name, dtype, low, high)


def _session_options(settings: SessionSettings) -> onnxruntime.SessionOptions:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = settings.intra_op_threads
    options.inter_op_num_threads = settings.inter_op_threads
    options.execution_mode = (
        onnxruntime.ExecutionMode.ORT_PARALLEL
        if settings.parallel
        else onnxruntime.ExecutionMode.ORT_SEQUENTIAL
    )
    options.graph_optimization_level = getattr(
        onnxruntime.GraphOptimizationLevel, settings.graph_level
    )
    options.enable_cpu_mem_arena = settings.mem_arena
    options.enable_mem_pattern = settings.mem_pattern
    # Every stage is a process with its own threads on the same cores: one that has nothing to
    # do must not spin while it waits for work.
    for pool in ("intra_op", "inter_op"):
        options.add_session_config_entry(f"session.{pool}.allow_spinning", "0")
    return options
