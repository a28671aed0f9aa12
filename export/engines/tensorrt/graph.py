"""The ONNX graph of a stage as TensorRT's parser takes it.

TensorRT has UINT8 at the ends of a network only, where it must be cast at once; a stage that
moves frames as UINT8 inside gets its casts moved to the ends. Dimensions that have one size
within the limits of a request are constants.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import onnx_ir

from reelserve.export.engines.onnx.engine import OPSET, older_onnx_model, onnx_model
from reelserve.export.engines.onnx.files import save_graph
from reelserve.export.engines.onnx.masks import give_masks_their_rows
from reelserve.export.engines.onnx.modules import for_any_graph
from reelserve.export.engines.onnx.temporal_attention import DOMAIN
from reelserve.export.stages import ExportStage
from reelserve.runtimes.tensorrt_plan import TensorRTError

_LAYOUT_OPS = {
    "Concat",
    "Expand",
    "Gather",
    "Identity",
    "Reshape",
    "Slice",
    "Split",
    "Squeeze",
    "Transpose",
    "Unsqueeze",
}
"""Operators that move values and compute none, so that a cast may stand before or after them."""
_UINT8 = onnx_ir.DataType.UINT8
_FLOAT = onnx_ir.DataType.FLOAT
_BF16 = onnx_ir.DataType.BFLOAT16


def with_fixed_dims(stage: ExportStage) -> ExportStage:
    """The stage with dimensions that have only one size no longer free.

    The plugin needs constant shapes, which keep clear of NVIDIA/TensorRT#4849, where every change
    of a shape leaks the kernels of a plugin.
    """
    free, sizes = {}, {}
    for spec, example in zip(stage.contract.inputs, stage.example_inputs, strict=True):
        dims = stage.free_dims.get(spec.name, {})
        for axis, name in dims.items():
            fixed = name in stage.ranges and stage.ranges[name].fixed
            sizes[name] = stage.ranges[name].low if fixed else example.shape[axis]
        free[spec.name] = {
            axis: name
            for axis, name in dims.items()
            if name not in stage.ranges or not stage.ranges[name].fixed
        }
    inputs = stage.inputs_at(stage.example_inputs[0].shape[0], sizes)
    return dataclasses.replace(stage, example_inputs=inputs, free_dims=free)


def write_graph(stage: ExportStage, path: Path, *, plugin: bool, opset: int = OPSET) -> int:
    """Writes the graph of a stage.

    Args:
        stage: Its free dimensions are those of the graph.
        path: The file to write; large weights go to `data_file`.
        plugin: Temporal attention is the node of our plugin; else standard operators.
        opset: Operator set; below the usual one, all that a set has not is plain operators of it.

    Returns:
        Nodes of our plugin.

    Raises:
        TensorRTError: If the stage computes on UINT8.
        OpsetError: If it has an operator that an older set lacks.
    """
    module = for_any_graph(stage.module)
    if opset < OPSET:
        model = older_onnx_model(stage, module)
        widen_tables(model)
    else:
        model = onnx_model(stage, module, "node" if plugin else "inlined")
    cast_at_the_ends(model)
    give_masks_their_rows(model)
    save_graph(model, path)
    return sum(node.domain == DOMAIN for node in model.graph)


def widen_tables(model: onnx_ir.Model) -> None:
    """Turns tables of UINT8, such as the text encoder's, into FLOAT, which holds all their levels.

    Newer libraries look up rows of UINT8 and cast them; TensorRT 8.6 has UINT8 at the ends alone.

    Args:
        model: Changed in place.
    """
    for value in model.graph.initializers.values():
        if value.const_value is None or value.dtype != _UINT8:
            continue
        wide = value.const_value.numpy().astype(np.float32)
        value.const_value, value.dtype = onnx_ir.tensor(wide, name=value.name), _FLOAT
        for node in value.consumers():
            if node.op_type in _LAYOUT_OPS:
                for output in node.outputs:
                    output.dtype = _FLOAT


def data_file(graph: Path) -> Path:
    """Where the weights of a graph are that are not in it."""
    return graph.with_name(graph.name + ".data")


def cast_at_the_ends(model: onnx_ir.Model) -> None:
    """Keeps UINT8 out of a graph: frames are cast first of all, and last of all.

    Args:
        model: Changed in place. Its frames pass layout operators as FLOAT, which holds all of
            their 256 levels.

    Raises:
        TensorRTError: If an operator computes on UINT8.
    """
    graph = model.graph
    nodes = list(graph)
    rounded = {_cast_input(graph, value) for value in graph.inputs if value.dtype == _UINT8}
    frames = set(rounded)
    for node in nodes:
        if _target(node) == _UINT8:
            # The cast at the end of the graph rounds.
            node.attributes["to"] = onnx_ir.AttrInt64("to", _FLOAT)
            moved = True
        else:
            moved = _moves_frames(node, frames, rounded)
        if moved:
            frames.update(node.outputs)
            for value in node.outputs:
                value.dtype = _FLOAT
    for index, value in enumerate(graph.outputs):
        if value in frames:
            graph.outputs[index] = _cast_output(graph, value)


def _target(node: onnx_ir.Node) -> int | None:
    """The type that a node casts to, if it is a cast."""
    return node.attributes["to"].as_int() if node.op_type == "Cast" else None


def _moves_frames(
    node: onnx_ir.Node, frames: set[onnx_ir.Value], rounded: set[onnx_ir.Value]
) -> bool:
    """Whether a node's outputs are frames because its inputs are.

    Args:
        node: To look at.
        frames: What was UINT8 before.
        rounded: Those of them that hold whole levels already, as the graph's inputs do; receives
            the node's outputs where they do.
    """
    taken = [value for value in node.inputs if value in frames]
    if not taken or node.op_type == "Shape":
        return False
    whole = rounded.issuperset(taken)
    if node.op_type == "Cast" and whole:
        return False
    if node.op_type not in _LAYOUT_OPS:
        raise TensorRTError(
            f"operator {node.op_type} ({node.name}) computes on UINT8; TensorRT casts UINT8 at the "
            "ends of a graph and computes nothing on it"
        )
    if whole:
        rounded.update(node.outputs)
    return True


def _cast_input(graph: onnx_ir.Graph, value: onnx_ir.Value) -> onnx_ir.Value:
    """Casts an input of a graph to FLOAT for all that use it."""
    cast = _cast(value, _FLOAT, f"{value.name}_levels")
    value.replace_all_uses_with(cast.outputs[0], replace_graph_outputs=True)
    cast.replace_input_with(0, value)
    graph.insert_before(graph[0], cast)
    return cast.outputs[0]


def _cast_output(graph: onnx_ir.Graph, value: onnx_ir.Value) -> onnx_ir.Value:
    """Casts an output of a graph to UINT8; the cast takes over its name."""
    name, value.name = value.name, f"{value.name}_levels"
    cast = _cast(value, _UINT8, name)
    graph.append(cast)
    return cast.outputs[0]


def _cast(value: onnx_ir.Value, dtype: onnx_ir.DataType, name: str | None) -> onnx_ir.Node:
    node = onnx_ir.node("Cast", [value], attributes={"to": dtype}, name=f"cast_{name}")
    result = node.outputs[0]
    result.name, result.shape, result.dtype = name, value.shape, dtype
    return node


def widen_file(path: Path) -> None:
    """Turns BF16, which ONNX Runtime's CPU kernels lack, into FP32 in a graph's file.

    The weights stay as BF16 has rounded them.

    Args:
        path: As `write_graph` left it; written anew where there is BF16 in it.
    """
    model = onnx_ir.load(path)
    if widen(model):
        # In another file: the weights are read from the old one while they are written.
        onnx_ir.save(model, path, external_data=f"{path.name}.fp32.data")
        data_file(path).unlink(missing_ok=True)


def widen(model: onnx_ir.Model) -> bool:
    """Turns BF16 into FP32 throughout a graph.

    Returns:
        Whether there was any.
    """
    found = False
    for value in model.graph.initializers.values():
        if value.const_value is not None and value.dtype == _BF16:
            value.const_value = onnx_ir.tensor(
                value.const_value.numpy().astype(np.float32), name=value.name
            )
            value.dtype, found = _FLOAT, True
    for node in model.graph:
        if _target(node) == _BF16:
            node.attributes["to"] = onnx_ir.AttrInt64("to", _FLOAT)
            found = True
        for name, attribute in node.attributes.items():
            if attribute.type == onnx_ir.AttributeType.TENSOR:
                tensor = attribute.as_tensor()
                if tensor.dtype == _BF16:
                    wide = onnx_ir.tensor(tensor.numpy().astype(np.float32))
                    node.attributes[name] = onnx_ir.AttrTensor(name, wide)
        for value in node.outputs:
            if value.dtype == _BF16:
                value.dtype = _FLOAT
    return found
