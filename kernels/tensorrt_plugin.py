"""Temporal attention as an ahead-of-time TensorRT plugin; importable only where TensorRT is.

Importing this registers `reelserve::TemporalAttention`, the operator of the ONNX node that
`export/engines/onnx/temporal_attention.py` writes. TensorRT (10.9 or later) puts the kernel's PTX
into the plan, so a server needs no plugin library. Frames, heads and head width are compiled in
and must be constants of the network; fixed shapes throughout avoid NVIDIA/TensorRT#4849, where
modules leak on each change of shape. Needs the package `triton` and a GPU while building.

Source: docs.nvidia.com/deeplearning/tensorrt, `tensorrt.plugin.aot_impl`.
"""
# TensorRT compares annotations with classes: they must not be strings.
# ruff: noqa: UP006, UP035

from typing import Tuple

import tensorrt as trt
import tensorrt.plugin as trtp
import triton

from reelserve.kernels.ahead_of_time import Variant, compile_variant, plugin_launch

PLUGIN_ID = "reelserve::TemporalAttention"
_DTYPES = {trt.float16: "fp16", trt.bfloat16: "bf16", trt.float32: "fp32"}


@trtp.register(PLUGIN_ID)
def temporal_attention_desc(
    qkv: trtp.TensorDesc,
    norm_q: trtp.TensorDesc,
    norm_k: trtp.TensorDesc,
    cos: trtp.TensorDesc,
    sin: trtp.TensorDesc,
    scale: float,
    epsilon: float,
) -> trtp.TensorDesc:
    """Shape of the output: `qkv [B, F, S, 3, N, D]` to `[B, F, S, N·D]`, same dtype."""
    b, f, s, _, n, d = qkv.shape_expr
    return trtp.from_shape_expr((b, f, s, n * d), dtype=qkv.dtype)


@trtp.aot_impl(PLUGIN_ID)
def temporal_attention_aot(
    qkv: trtp.TensorDesc,
    norm_q: trtp.TensorDesc,
    norm_k: trtp.TensorDesc,
    cos: trtp.TensorDesc,
    sin: trtp.TensorDesc,
    scale: float,
    epsilon: float,
    outputs: Tuple[trtp.TensorDesc],
    tactic: int,
) -> Tuple[str, str, trtp.KernelLaunchParams, trtp.SymExprs]:
    """The kernel's name, its PTX, its launch and the sizes between its inputs and its output.

    Raises:
        ValueError: If weights and tables are of different dtypes.
    """
    tables = {_DTYPES[tensor.dtype] for tensor in (norm_q, norm_k, cos, sin)}
    if len(tables) > 1:
        raise ValueError(f"norm_q, norm_k, cos and sin are {sorted(tables)}: must be of one dtype")
    b, f, s, _, n, d = qkv.shape_expr
    variant = Variant(
        f.constant_value(),
        d.constant_value(),
        _DTYPES[qkv.dtype],
        num_heads=n.constant_value(),
        table_dtype=tables.pop(),
        scale=scale,
        eps=epsilon,
    )
    arch = triton.runtime.driver.active.get_current_target().arch
    compiled = compile_variant(variant, arch)
    launch = plugin_launch(compiled, (b, f, s, n), trtp.cdiv)
    params = trtp.KernelLaunchParams(
        grid_x=launch.grid_x, block_x=launch.block_x, shared_mem=launch.shared_bytes
    )
    sizes = trtp.SymIntExprs(len(launch.sizes))
    for index, size in enumerate(launch.sizes):
        sizes[index] = trtp.SymInt32(size)
    return compiled.name, compiled.ptx, params, sizes
