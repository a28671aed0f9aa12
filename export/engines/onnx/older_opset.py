"""Graphs of operator set 17, for parsers that take no newer one.

The exporter writes operator set 18 at the lowest. Its own way down leaves a graph as it is where
one operator has no converter, so the few differences that a stage can meet are undone here.
"""

from __future__ import annotations

from collections.abc import Callable

import onnx_ir
import onnx_ir.passes.common as common_passes
import torch
from torch.export import ExportedProgram

from reelserve.kernels.temporal_attention import temporal_attention_ref

OPSET = 17
EXPORTED_OPSET = 18
"""What the exporter is asked for first."""
IR_VERSION = 8
"""Version of the file format that came with the operator set."""
_AXES_TO_ATTRIBUTE = ("ReduceMax", "ReduceMean", "ReduceMin", "ReduceProd", "ReduceL1", "ReduceL2")
_AXES_TO_ATTRIBUTE += ("ReduceLogSum", "ReduceLogSumExp", "ReduceSumSquare")
"""Operators whose axes became an input in 18; those of ReduceSum did so before."""
_CHANGED = {
    "BitwiseAnd",
    "BitwiseNot",
    "BitwiseOr",
    "BitwiseXor",
    "CenterCropPad",
    "Col2Im",
    "GroupNormalization",
    "LpPool",
    "Mish",
}
"""Operators that 17 lacks or means otherwise, and that no stage has."""


class OpsetError(ValueError):
    """A graph has an operator that the older set lacks; the message names it."""


def without_fused_ops(program: ExportedProgram) -> ExportedProgram:
    """The program with the fused temporal attention in plain operators, which any set has.

    One without it is left as it is: decomposing traces a program once more.
    """
    fused = torch.ops.reelserve.temporal_attention.default
    if not any(node.target is fused for node in program.graph.nodes):
        return program

    def reference(  # type: ignore[no-untyped-def]
        qkv, norm_q=None, norm_k=None, cos=None, sin=None, scale=None, eps=1e-6
    ):
        return temporal_attention_ref(qkv, norm_q, norm_k, cos, sin, scale=scale, eps=eps)

    table: dict[torch._ops.OperatorBase, Callable[..., object]] = {fused: reference}
    return program.run_decompositions(table)


def lower(model: onnx_ir.Model) -> None:
    """Turns a graph of operator set 18 into one of 17.

    Args:
        model: Changed in place.

    Raises:
        OpsetError: If it has an operator that 17 lacks.
    """
    # TensorRT 8.6 reads a Constant of plain integers (`value_ints`) wrongly and without a word.
    common_passes.LiftConstantsToInitializersPass(lift_all_constants=True, size_limit=0)(model)
    # Some values have no type of their own yet, which a cast must name.
    common_passes.ShapeInferencePass()(model)
    for node in list(model.graph):
        if node.op_type in _CHANGED:
            raise OpsetError(f"operator {node.op_type} ({node.name}) is not in operator set 17")
        if node.op_type in _AXES_TO_ATTRIBUTE:
            _move_axes(node)
        elif node.op_type == "CastLike":
            _cast(node)
        elif node.op_type in ("Expand", "Tile"):
            _drop_where_it_changes_nothing(node)
        elif node.op_type == "Split":
            node.attributes.pop("num_outputs", None)
        elif node.op_type == "Resize":
            _require_default(node, "antialias", 0)
            _require_default(node, "keep_aspect_ratio_policy", "stretch")
            node.attributes.pop("axes", None)
        elif node.op_type == "Pad" and len(node.inputs) > 3 and node.inputs[3] is not None:
            raise OpsetError(f"operator Pad ({node.name}) has axes, which set 17 has not")
    model.opset_imports[""] = OPSET
    model.ir_version = IR_VERSION


def _move_axes(node: onnx_ir.Node) -> None:
    axes = node.inputs[1] if len(node.inputs) > 1 else None
    if axes is not None:
        known = onnx_ir.convenience.get_const_tensor(axes)
        if known is None:
            raise OpsetError(f"operator {node.op_type} ({node.name}) has axes that are computed")
        values = [int(axis) for axis in known.numpy().reshape(-1)]
        node.attributes["axes"] = onnx_ir.AttrInt64s("axes", values)
        node.replace_input_with(1, None)
        node.resize_inputs(1)
    node.attributes.pop("noop_with_empty_axes", None)


def _cast(node: onnx_ir.Node) -> None:
    """Names the type of a CastLike, which TensorRT 8.6 does not know."""
    like = node.inputs[1]
    assert like is not None and like.dtype is not None
    node.op_type = "Cast"
    node.resize_inputs(1)
    node.attributes["to"] = onnx_ir.AttrInt64("to", like.dtype)


def _drop_where_it_changes_nothing(node: onnx_ir.Node) -> None:
    """Takes an Expand or Tile out whose output has the shape of its input."""
    data, repeated = node.inputs[0], node.outputs[0]
    assert data is not None
    shapes = [value.shape for value in (data, repeated)]
    if any(shape is None or not shape.is_static() for shape in shapes) or shapes[0] != shapes[1]:
        return
    if not repeated.is_graph_output():
        repeated.replace_all_uses_with(data)


def _require_default(node: onnx_ir.Node, name: str, value: object) -> None:
    attribute = node.attributes.pop(name, None)
    if attribute is not None and attribute.value != value:
        raise OpsetError(
            f"operator {node.op_type} ({node.name}) has {name} {attribute.value}, which set 17 "
            "has not"
        )
