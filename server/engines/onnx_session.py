"""Runs an ONNX graph that a Triton config describes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from reelserve.runtimes.graph_spec import METADATA_KEY, GraphSpec
from reelserve.runtimes.onnx_graph import open_graph
from reelserve.server.engines.session_settings import SessionSettings

ONNX_TYPES = {
    "TYPE_BOOL": "tensor(bool)",
    "TYPE_UINT8": "tensor(uint8)",
    "TYPE_INT8": "tensor(int8)",
    "TYPE_INT32": "tensor(int32)",
    "TYPE_INT64": "tensor(int64)",
    "TYPE_FP16": "tensor(float16)",
    "TYPE_FP32": "tensor(float)",
    "TYPE_FP64": "tensor(double)",
}
"""Triton data types that a graph can have."""
NUMPY_TYPES = {
    "tensor(bool)": np.bool_,
    "tensor(uint8)": np.uint8,
    "tensor(int8)": np.int8,
    "tensor(int32)": np.int32,
    "tensor(int64)": np.int64,
    "tensor(float16)": np.float16,
    "tensor(float)": np.float32,
    "tensor(double)": np.float64,
}


@dataclass(frozen=True)
class GraphTensor:
    """An input or output of a graph.

    Args:
        name: Its name.
        onnx_type: For example `tensor(float)`.
        shape: A free dimension is a name or None.
    """

    name: str
    onnx_type: str
    shape: tuple[int | str | None, ...]


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
        check_graph(
            config,
            inputs=[_graph_tensor(node) for node in self._session.get_inputs()],
            outputs=[_graph_tensor(node) for node in self._session.get_outputs()],
        )
        self._outputs = [output["name"] for output in config["output"]]
        self._run_options = onnxruntime.RunOptions()
        if settings.arena_shrinkage:
            self._run_options.add_run_config_entry(
                "memory.enable_memory_arena_shrinkage", settings.arena_shrinkage
            )
        if settings.warm_up:
            self._warm_up()

    def run(self, inputs: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        """Runs the graph once."""
        values = self._session.run(self._outputs, dict(inputs), self._run_options)
        return {name: np.asarray(value) for name, value in zip(self._outputs, values, strict=True)}

    def _warm_up(self) -> None:
        """The usual shapes, for which a GPU's library first tries its convolutions: seconds."""
        written = self._session.get_modelmeta().custom_metadata_map.get(METADATA_KEY)
        if written is None:
            raise ValueError(
                "parameter warm_up is 1, and the graph does not tell its usual shapes; it must be "
                "0, or the graph be exported by `reelserve export`"
            )
        types = {node.name: NUMPY_TYPES[node.type] for node in self._session.get_inputs()}
        specs = GraphSpec.from_json(written).inputs
        self.run({spec.name: np.ones(spec.usual, types[spec.name]) for spec in specs})


def check_graph(
    config: Mapping[str, Any], inputs: Sequence[GraphTensor], outputs: Sequence[GraphTensor]
) -> None:
    """Compares a graph with the config that serves it.

    Raises:
        ValueError: If names, data types, ranks or fixed dimensions differ; it names all of
            the differences.
    """
    batched = int(config.get("max_batch_size", 0)) > 0
    faults = [
        *_faults("input", config["input"], inputs, batched=batched),
        *_faults("output", config["output"], outputs, batched=batched),
    ]
    if faults:
        raise ValueError(f"config.pbtxt and model.onnx disagree: {'; '.join(faults)}")


def _faults(
    side: str,
    specs: Sequence[Mapping[str, Any]],
    tensors: Sequence[GraphTensor],
    *,
    batched: bool,
) -> list[str]:
    by_name = {tensor.name: tensor for tensor in tensors}
    configured = {str(spec["name"]) for spec in specs}
    faults = [
        f"{side} {name} is in the graph but not in the config"
        for name in by_name
        # An output that nobody asks for is not computed; an input must be fed.
        if name not in configured and side == "input"
    ]
    for spec in specs:
        tensor = by_name.get(spec["name"])
        if tensor is None:
            faults.append(
                f"{side} {spec['name']} is in the config but not in the graph, which has "
                f"{sorted(by_name)}"
            )
        else:
            faults.extend(_tensor_faults(side, spec, tensor, batched=batched))
    return faults


def _tensor_faults(
    side: str, spec: Mapping[str, Any], tensor: GraphTensor, *, batched: bool
) -> list[str]:
    faults = []
    expected = ONNX_TYPES.get(str(spec["data_type"]))
    if tensor.onnx_type != expected:
        faults.append(
            f"{side} {tensor.name} is {spec['data_type']} in the config and "
            f"{tensor.onnx_type} in the graph"
        )
    dims = [-1] * batched + [int(dim) for dim in spec["dims"]]
    shape = [dim if isinstance(dim, int) else -1 for dim in tensor.shape]
    fits = len(dims) == len(shape) and all(
        dim == size or size == -1 or (dim == -1 and index > 0)
        for index, (dim, size) in enumerate(zip(dims, shape, strict=True))
    )
    if not fits:
        batch = ", batch dimension first" if batched else ""
        faults.append(
            f"{side} {tensor.name} has dims {dims} in the config{batch}, and "
            f"{list(tensor.shape)} in the graph"
        )
    return faults


def _graph_tensor(node: Any) -> GraphTensor:
    return GraphTensor(node.name, node.type, tuple(node.shape))


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
