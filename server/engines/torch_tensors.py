"""Tensors of a request as torch has them; imports torch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from reelserve.runtimes.graph_spec import GraphInput
from reelserve.server.device_tensor import AnyTensors

OUTPUT_DEVICES = ("cpu", "gpu")
"""Where a session on a GPU may leave its outputs."""
TORCH_TYPES = {
    "BOOL": torch.bool,
    "UINT8": torch.uint8,
    "INT32": torch.int32,
    "INT64": torch.int64,
    "FP16": torch.float16,
    "FP32": torch.float32,
}
"""By Triton data types, of those that a graph's tensors can have."""


def read_tensor(inputs: AnyTensors, spec: GraphInput) -> Tensor:
    """An input as torch sees it, where it is.

    Raises:
        ValueError: If it is missing or of another type.
    """
    if spec.name not in inputs:
        raise ValueError(f"input {spec.name} is missing")
    value: Any = inputs[spec.name]
    if isinstance(value, np.ndarray):
        # A copy where Triton's array cannot be written: torch has no such tensors.
        tensor = torch.from_numpy(np.require(value, requirements=["C", "W"]))
    else:
        tensor = torch.utils.dlpack.from_dlpack(
            value.to_dlpack() if hasattr(value, "to_dlpack") else value
        )
    if tensor.dtype != TORCH_TYPES[spec.dtype]:
        kind = str(tensor.dtype).removeprefix("torch.")
        raise ValueError(f"{spec.name} is {kind}; the graph takes {spec.dtype}")
    return tensor


def on_host(tensors: Sequence[Tensor]) -> list[NDArray[Any]]:
    """Copies tensors from a GPU through pinned host memory."""
    pinned = [torch.empty(t.shape, dtype=t.dtype, pin_memory=True) for t in tensors]
    for target, tensor in zip(pinned, tensors, strict=True):
        target.copy_(tensor, non_blocking=True)
    torch.cuda.current_stream().synchronize()
    return [target.numpy() for target in pinned]
