"""Tensors of a request: NumPy arrays, and what stays in a GPU's memory."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

from numpy.typing import NDArray

NVIDIA_DEVICE = Path("/dev/nvidiactl")
"""Device file that exists while the driver is loaded."""


class DeviceTensor(Protocol):
    """A tensor in a GPU's memory, Triton's or torch's; others read it by DLPack."""

    def __dlpack__(self) -> Any:
        """The capsule."""

    def __dlpack_device__(self) -> tuple[int, int]:
        """Kind and number of its device, as DLPack counts them."""


AnyTensor = NDArray[Any] | DeviceTensor
AnyTensors = Mapping[str, AnyTensor]


def has_gpu() -> bool:
    """Whether a driver for NVIDIA's GPUs runs here; imports nothing to find out."""
    return NVIDIA_DEVICE.exists()
