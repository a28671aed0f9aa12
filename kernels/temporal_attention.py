"""Attention over the frames of a video at each location, from packed projections.

For every batch row, location and head, with queries, keys and values `[F, D]`:

    q = rotate(norm(q)), k = rotate(norm(k)), out = softmax(q kᵀ · scale) v

where `norm` is the root-mean-square norm with a weight per channel and `rotate` the rotary
embedding over frames; both are optional.

Layout: `qkv` is `[B, F, S, 3, N, D]`, what one linear layer gives; `out` is `[B, F, S, N·D]`,
what the next one takes. Neither is transposed or copied.

Traffic: `qkv` is read once and `out` written once, `4·B·F·S·N·D` elements; norm, rotation and
softmax stay in registers. The unfused chain moves each of queries and keys again for the norm,
the rotation and the transposes: `kernels/README.md` counts it.

Limits: F from 1 to 128; D 40, 64, 72, 80, 96 or 128; fp16, bf16 or fp32, all summed in fp32.
Where heads share a tile (F ≤ 8, or as the launch table says), a NaN or infinity in one spreads
to its neighbours in that tile.

Source: softmax in one tile as in FlashAttention (arXiv 2205.14135); differs by packing short
sequences into tiles, and by norm and rotation inside.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor
from torch.library import triton_op, wrap_triton

from reelserve.kernels.launch import (
    HEAD_DIMS,
    MAX_FRAMES,
    MAX_SEQUENCES,
    LaunchConfig,
    grid_size,
    kernel_constants,
    launch_config,
)

try:
    from reelserve.kernels.temporal_attention_kernel import (
        temporal_attention_blocked_fwd_kernel,
        temporal_attention_fwd_kernel,
    )
    from reelserve.kernels.temporal_attention_pipelined_kernel import (
        temporal_attention_pipelined_fwd_kernel,
    )
except ModuleNotFoundError as error:
    if error.name != "triton":
        raise
    HAS_TRITON = False
else:
    HAS_TRITON = True

DTYPES = (torch.float16, torch.bfloat16, torch.float32)
OP_NAME = "reelserve::temporal_attention"
EPS = 1e-6


def temporal_attention_ref(
    qkv: Tensor,
    norm_q: Tensor | None = None,
    norm_k: Tensor | None = None,
    cos: Tensor | None = None,
    sin: Tensor | None = None,
    *,
    scale: float | None = None,
    eps: float = EPS,
    upcast: bool = False,
) -> Tensor:
    """Attention over frames in plain PyTorch; differentiable.

    Args:
        qkv: `[B, F, S, 3, N, D]`.
        norm_q: `[D]` weights of the norm of queries; None for no norm.
        norm_k: Like `norm_q`, of keys.
        cos: `[F, D/2]` rotary table; None for no rotation.
        sin: Like `cos`.
        scale: Factor of the logits; `D**-0.5` by default.
        eps: Added to the mean square.
        upcast: Computes in fp64 and returns it: what the kernels are measured against.

    Returns:
        `[B, F, S, N·D]`, dtype of `qkv`, or fp64.
    """
    if upcast:
        qkv, norm_q, norm_k, cos, sin = (
            None if x is None else x.double() for x in (qkv, norm_q, norm_k, cos, sin)
        )
    b, f, s, _, n, d = qkv.shape
    # Four dimensions: SDPA's fused paths take no more.
    q, k, v = qkv.permute(3, 0, 2, 4, 1, 5).reshape(3, b * s, n, f, d).unbind(0)
    if norm_q is not None and norm_k is not None:
        q, k = _rms_norm(q, norm_q, eps), _rms_norm(k, norm_k, eps)
    if cos is not None and sin is not None:
        q, k = _rotate(q, cos, sin), _rotate(k, cos, sin)
    out = F.scaled_dot_product_attention(q, k, v, scale=scale)
    return out.reshape(b, s, n, f, d).permute(0, 3, 1, 2, 4).reshape(b, f, s, n * d)


def _rms_norm(x: Tensor, weight: Tensor, eps: float) -> Tensor:
    wide = x if x.dtype == torch.float64 else x.float()
    scale = torch.rsqrt(wide.square().mean(-1, keepdim=True) + eps)
    return (wide * scale * weight).to(x.dtype)


def _rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    low, high = x.chunk(2, dim=-1)
    return torch.cat([low * cos - high * sin, high * cos + low * sin], dim=-1).to(x.dtype)


def temporal_attention(
    qkv: Tensor,
    norm_q: Tensor | None = None,
    norm_k: Tensor | None = None,
    cos: Tensor | None = None,
    sin: Tensor | None = None,
    *,
    scale: float | None = None,
    eps: float = EPS,
) -> Tensor:
    """Attention over the frames at each location, differentiable where a gradient is wanted.

    Without gradients it is the op `reelserve::temporal_attention`: one kernel on an NVIDIA GPU,
    the reference on a CPU. With gradients it is the reference, since the kernel has no backward.

    Args:
        qkv: `[B, F, S, 3, N, D]`, contiguous; fp16, bf16 or fp32.
        norm_q: `[D]` weights of the norm of queries; None for no norm.
        norm_k: Like `norm_q`, of keys.
        cos: `[F, D/2]` rotary table; None for no rotation.
        sin: Like `cos`.
        scale: Factor of the logits; `D**-0.5` by default.
        eps: Added to the mean square.

    Returns:
        `[B, F, S, N·D]`, dtype of `qkv`.

    Raises:
        ValueError: If an argument is out of range, named with its value and the limit.
        ModuleNotFoundError: If `qkv` is on a GPU and the package `triton` is missing.
    """
    inputs = (qkv, norm_q, norm_k, cos, sin)
    if torch.is_grad_enabled() and any(x is not None and x.requires_grad for x in inputs):
        _validate(*inputs)
        return temporal_attention_ref(*inputs, scale=scale, eps=eps)
    return torch.ops.reelserve.temporal_attention(*inputs, scale, eps)


@triton_op(OP_NAME, mutates_args={})
def temporal_attention_op(
    qkv: Tensor,
    norm_q: Tensor | None = None,
    norm_k: Tensor | None = None,
    cos: Tensor | None = None,
    sin: Tensor | None = None,
    scale: float | None = None,
    eps: float = EPS,
) -> Tensor:
    """The op itself: `temporal_attention` without gradients."""
    _validate(qkv, norm_q, norm_k, cos, sin)
    if qkv.device.type != "cuda":
        return temporal_attention_ref(qkv, norm_q, norm_k, cos, sin, scale=scale, eps=eps)
    if not HAS_TRITON:
        raise ModuleNotFoundError(
            "temporal_attention: qkv is on a GPU, which needs the package triton", name="triton"
        )
    _, f, _, _, n, d = qkv.shape
    config = launch_config(_arch(qkv.device), _largest(f), n, d, qkv.element_size())
    scale = d**-0.5 if scale is None else scale
    return launch(qkv, norm_q, norm_k, cos, sin, scale=scale, eps=eps, config=config)


def launch(
    qkv: Tensor,
    norm_q: Tensor | None,
    norm_k: Tensor | None,
    cos: Tensor | None,
    sin: Tensor | None,
    *,
    scale: float,
    eps: float,
    config: LaunchConfig,
) -> Tensor:
    """Launches the kernel as `config` says, on arguments that were validated."""
    b, f, s, _, n, d = qkv.shape
    out = torch.empty((b, f, s, n * d), dtype=qkv.dtype, device=qkv.device)
    if out.numel() == 0:
        return out
    constants = kernel_constants(
        config,
        _largest(f),
        d,
        scale=scale,
        eps=eps,
        qk_norm=norm_q is not None,
        rope=cos is not None,
        element_bytes=qkv.element_size(),
        exact=isinstance(f, int),
    )
    multiprocessors = torch.cuda.get_device_properties(qkv.device).multi_processor_count
    grid = (grid_size(config, f, b * s * n, multiprocessors),)
    # Pointers that a variant does not read still need a tensor.
    tensors = (qkv, *(qkv if x is None else x for x in (norm_q, norm_k, cos, sin)))
    options = {"num_warps": config.num_warps, "num_stages": 1}
    if config.num_stages:
        kernel = wrap_triton(temporal_attention_pipelined_fwd_kernel)
    elif config.blocked:
        kernel = wrap_triton(temporal_attention_blocked_fwd_kernel)
    else:
        kernel = wrap_triton(temporal_attention_fwd_kernel)
    kernel[grid](*tensors, f, s, n, b * s * n, out, **constants, **options)
    return out


def _largest(num_frames: int | torch.SymInt) -> int:
    """The number of frames or, where a graph leaves it free, the largest that it takes.

    The kernel's blocks are made for it; fewer frames leave a part of a block empty.
    """
    if isinstance(num_frames, int):
        return num_frames
    return int(num_frames.node.shape_env.bound_sympy(num_frames.node.expr).upper)


def _arch(device: torch.device) -> int:
    major, minor = torch.cuda.get_device_capability(device)
    return 10 * major + minor


def _validate(
    qkv: Tensor,
    norm_q: Tensor | None,
    norm_k: Tensor | None,
    cos: Tensor | None,
    sin: Tensor | None,
) -> None:
    """Raises ValueError naming argument, value and limit."""
    shape = tuple(qkv.shape)
    if qkv.ndim != 6 or shape[3] != 3:
        raise ValueError(f"qkv has shape {shape}: must be [B, F, S, 3, N, D]")
    b, f, s, _, n, d = shape
    if not 1 <= f <= MAX_FRAMES:
        raise ValueError(f"qkv has {f} frames: F must be 1 to {MAX_FRAMES}")
    if d not in HEAD_DIMS:
        raise ValueError(f"qkv has head width {d}: D must be one of {HEAD_DIMS}")
    if qkv.dtype not in DTYPES:
        raise ValueError(f"qkv is {qkv.dtype}: must be one of {DTYPES}")
    if b * s * n >= MAX_SEQUENCES:
        raise ValueError(f"qkv has {b * s * n} sequences: B * S * N must be below {MAX_SEQUENCES}")
    if not qkv.is_contiguous():
        raise ValueError(f"qkv has strides {tuple(qkv.stride())}: must be contiguous")
    _validate_pair(("norm_q", norm_q), ("norm_k", norm_k), (d,), qkv)
    _validate_pair(("cos", cos), ("sin", sin), (f, d // 2), qkv)


def _validate_pair(
    first: tuple[str, Tensor | None],
    second: tuple[str, Tensor | None],
    shape: tuple[int, ...],
    qkv: Tensor,
) -> None:
    if (first[1] is None) != (second[1] is None):
        raise ValueError(f"{first[0]} and {second[0]}: give both or neither")
    for name, value in (first, second):
        if value is None:
            continue
        if tuple(value.shape) != shape:
            raise ValueError(f"{name} has shape {tuple(value.shape)}: must be {shape}")
        if value.device != qkv.device:
            raise ValueError(f"{name} is on {value.device}: must be on {qkv.device}, as qkv is")
        if not value.is_floating_point() or not value.is_contiguous():
            raise ValueError(f"{name} is {value.dtype}: must be contiguous and floating-point")
