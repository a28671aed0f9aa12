"""What differs between the TensorRT libraries: one row for each, read by exporter and server.

Source: https://docs.nvidia.com/deeplearning/tensorrt, release notes and Python API of 8.6 and 10.
"""

from __future__ import annotations

from dataclasses import dataclass

FULL = "tensorrt"
"""Import name of full TensorRT."""
RTX = "tensorrt_rtx"


@dataclass(frozen=True)
class Edition:
    """One kind of TensorRT.

    Args:
        name: `tensorrt` or `tensorrt_rtx`.
        tag: In the names of plans.
        opset: Newest ONNX operator set that its parser takes and that this project writes.
        precisions: Those it builds, the default first.
        strongly_typed: Whether every layer has the type that the graph gives it. Otherwise the
            graph is in fp32 and a flag of the builder lets layers have fp16.
        explicit_batch: Whether a network must be told that its batch is a dimension.
        one_shape: Whether a plan has one shape, of one row. The rows of a batch run one after
            another.
        narrow_integers: Whether the INT64 of a graph is INT32 in a plan.
        ahead_of_time_plugins: Whether a Python plugin can be put into a plan.
        any_gpu: Whether it builds for other GPUs than the one at hand, and times nothing.
        tactic_sources: Bits of the libraries whose kernels it may take; None leaves its default.
    """

    name: str
    tag: str
    opset: int
    precisions: tuple[str, ...]
    strongly_typed: bool = True
    explicit_batch: bool = False
    one_shape: bool = False
    narrow_integers: bool = False
    ahead_of_time_plugins: bool = False
    any_gpu: bool = False
    tactic_sources: int | None = None


RTX_EDITION = Edition(RTX, "rtx", 23, ("bf16", "fp16", "fp32"), any_gpu=True)
FULL_EDITION = Edition(FULL, "trt", 23, ("bf16", "fp16", "fp32"), ahead_of_time_plugins=True)
FULL_8_EDITION = Edition(
    FULL,
    "trt",
    17,
    ("fp16", "fp32"),
    strongly_typed=False,
    explicit_batch=True,
    one_shape=True,
    narrow_integers=True,
    # None of them, so that neither cuBLAS nor cuDNN has to be installed.
    tactic_sources=0,
)
"""TensorRT 8.6, the newest full one that a package index holds whole."""


def edition_of(module: str, version: str) -> Edition:
    """The row of an installed library.

    Args:
        module: Its import name.
        version: Its version, for example `8.6.0`.
    """
    if module != FULL:
        return RTX_EDITION
    return FULL_8_EDITION if int(version.split(".")[0]) <= 8 else FULL_EDITION
