"""Writes ONNX graphs, large weights in a file beside the graph."""

from __future__ import annotations

from pathlib import Path

import onnx_ir

EXTERNAL_DATA_BYTES = 2**30
"""Bytes of weights above which they go to `model.onnx.data` beside the graph. One file holds 2 GB
at most, and a graph in one file is in memory three times while it is written: as tensors, as
protocol buffer and as its bytes. Tensors beside it are written one after the other."""


def save_graph(model: onnx_ir.Model, path: Path) -> None:
    """Writes a graph.

    Args:
        model: Its tensors may be torch's own; they are not copied.
        path: File to write.
    """
    values = (value.const_value for value in model.graph.initializers.values())
    size_bytes = sum(tensor.nbytes for tensor in values if tensor is not None)
    if size_bytes > EXTERNAL_DATA_BYTES:
        onnx_ir.save(model, path, external_data=f"{path.name}.data")
    else:
        onnx_ir.save(model, path)
