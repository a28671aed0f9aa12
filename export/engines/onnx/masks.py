"""Masks of attention as the engines take them.

ONNX Runtime does not broadcast a mask over queries, and TensorRT-RTX 1.7 fails inside where its
fused kernels get a mask of one row.
"""

from __future__ import annotations

import onnx_ir


def give_masks_their_rows(model: onnx_ir.Model) -> None:
    """Repeats attention masks of one row for every query.

    Args:
        model: Changed in place.
    """
    for node in list(model.graph):
        if node.op_type != "Attention" or len(node.inputs) < 4 or node.inputs[3] is None:
            continue
        query, mask = node.inputs[0], node.inputs[3]
        assert query is not None and query.shape is not None and mask.shape is not None
        if mask.shape[-2] != 1:
            continue
        axis = len(query.shape) - 2
        rows = onnx_ir.node("Shape", [query], attributes={"start": axis, "end": axis + 1})
        one = onnx_ir.node("Constant", [], attributes={"value_ints": [1]})
        sizes = [one.outputs[0]] * (len(mask.shape) - 2) + [rows.outputs[0], one.outputs[0]]
        shape = onnx_ir.node("Concat", sizes, attributes={"axis": 0})
        expand = onnx_ir.node("Expand", [mask, shape.outputs[0]])
        model.graph.insert_before(node, (rows, one, shape, expand))
        node.replace_input_with(3, expand.outputs[0])
