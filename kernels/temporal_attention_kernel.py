"""The Triton kernel of temporal attention; imported only where the package `triton` is.

Equation, layout and memory traffic stand in `temporal_attention.py`, sizes of blocks in
`launch.py`.
"""

from __future__ import annotations

import triton
import triton.language as tl

from reelserve.kernels.temporal_attention_parts import (
    dot_logits,
    inverse_rms,
    load_norm,
    output_offsets,
    rotate,
)


@triton.jit
def _load_halves(ptrs, live, D: tl.constexpr, BLOCK_HALF: tl.constexpr):
    """Loads rows as two halves of `D`, which rotary embedding turns against each other.

    Args:
        ptrs: `[BLOCK, PACK]`, the first element of each row.
        live: `[BLOCK, PACK]`, true where a row exists.

    Returns:
        Two `[BLOCK, PACK, BLOCK_HALF]` tiles.
    """
    half = tl.arange(0, BLOCK_HALF)
    mask = live[:, :, None] & (half < D // 2)[None, None, :]
    ptrs = ptrs[:, :, None] + half[None, None, :]
    # `.cg` keeps what is read once out of L1, where the rotary tables stay.
    low = tl.load(ptrs, mask=mask, other=0.0, cache_modifier=".cg")
    high = tl.load(ptrs + D // 2, mask=mask, other=0.0, cache_modifier=".cg")
    return low, high


@triton.jit
def _norm_and_rotate(
    low,
    high,
    norm_ptr,
    frames,
    cos_ptr,
    sin_ptr,
    num_frames,
    EPS: tl.constexpr,
    D: tl.constexpr,
    QK_NORM: tl.constexpr,
    ROPE: tl.constexpr,
):
    """RMS norm and rotary embedding in fp32 registers.

    Args:
        low: `[BLOCK, PACK, BLOCK_HALF]`.
        high: Like `low`.
        norm_ptr: `[D]` weights.
        frames: `[BLOCK]`, the frame of each row.
        cos_ptr: `[F, D/2]`.
        sin_ptr: Like `cos_ptr`.
        num_frames: `F`.

    Returns:
        Two `[BLOCK·PACK, BLOCK_HALF]` tiles of the dtype of `low`.
    """
    dtype: tl.constexpr = low.dtype
    rows: tl.constexpr = low.shape[0] * low.shape[1]
    columns: tl.constexpr = low.shape[2]
    half = tl.arange(0, columns)
    inside = half < D // 2
    if QK_NORM:
        low = low.to(tl.float32)
        high = high.to(tl.float32)
        scale = inverse_rms(low, high, EPS, D)
        low_weight, high_weight = load_norm(norm_ptr, D, columns)
        low = low * scale * low_weight[None, None, :]
        high = high * scale * high_weight[None, None, :]
    if ROPE:
        offsets = frames[:, None] * (D // 2) + half[None, :]
        exists = (frames < num_frames)[:, None] & inside[None, :]
        cos = tl.load(cos_ptr + offsets, mask=exists, other=0.0, eviction_policy="evict_last")
        sin = tl.load(sin_ptr + offsets, mask=exists, other=0.0, eviction_policy="evict_last")
        cos = cos.to(tl.float32)[:, None, :]
        sin = sin.to(tl.float32)[:, None, :]
        low = low.to(tl.float32)
        high = high.to(tl.float32)
        if not QK_NORM:
            # Multiplies by one. Without a sum over the row the compiler rotates in the layout of
            # the product's operands, where every warp holds the tables of all, and spills.
            one = tl.where(tl.sum(low * low, axis=2) < 0, 0.0, 1.0)[:, :, None]
            low = low * one
            high = high * one
        low, high = rotate(low, high, cos, sin)
    low = tl.reshape(low.to(dtype), (rows, columns))
    high = tl.reshape(high.to(dtype), (rows, columns))
    return low, high


@triton.jit
def _attend(
    q_low, q_high, k_low, k_high, v, attends, SCALE_LOG2: tl.constexpr, DOT_PRECISION: tl.constexpr
):
    """Softmax attention of `[M, BLOCK_HALF]` queries over `[K, …]` keys; `[M, BLOCK_D]` fp32."""
    logits = dot_logits(q_low, q_high, k_low, k_high, DOT_PRECISION)
    logits = tl.where(attends, logits, float("-inf"))
    peak = tl.max(logits, axis=1) * SCALE_LOG2
    weights = tl.exp2(logits * SCALE_LOG2 - peak[:, None])
    weights = weights * (1.0 / tl.sum(weights, axis=1))[:, None]
    return tl.dot(weights.to(v.dtype), v, input_precision=DOT_PRECISION)


@triton.jit
def temporal_attention_fwd_kernel(
    qkv_ptr,
    norm_q_ptr,
    norm_k_ptr,
    cos_ptr,
    sin_ptr,
    num_frames,
    num_locations,
    num_heads,
    num_sequences,
    out_ptr,
    SCALE_LOG2: tl.constexpr,
    EPS: tl.constexpr,
    D: tl.constexpr,
    QK_NORM: tl.constexpr,
    ROPE: tl.constexpr,
    BLOCK_F: tl.constexpr,
    BLOCK_Q: tl.constexpr,
    PACK: tl.constexpr,
    BLOCK_HALF: tl.constexpr,
    BLOCK_D: tl.constexpr,
    DOT_PRECISION: tl.constexpr,
):
    """Attends along the frames of `PACK` sequences: neighbouring heads of one location.

    A tile row is (frame, sequence), so that a thread keeps its part of the rotary tables for
    all sequences. Products between rows of different sequences are masked out. The order of
    the arguments, output last, is TensorRT's.

    Args:
        qkv_ptr: `[B, F, S, 3, N, D]`, contiguous.
        norm_q_ptr: `[D]`; any pointer without QK_NORM.
        norm_k_ptr: Like `norm_q_ptr`.
        cos_ptr: `[F, D/2]`, contiguous; any pointer without ROPE.
        sin_ptr: Like `cos_ptr`.
        num_frames: `F`, at most BLOCK_F.
        num_locations: `S`.
        num_heads: `N`.
        num_sequences: `B·S·N`.
        out_ptr: `[B, F, S, N·D]`, contiguous.

    Grid: (ceil(B·S·N / PACK),)
    """
    sequence = tl.program_id(0) * PACK + tl.arange(0, PACK)
    head = sequence % num_heads
    location = sequence // num_heads
    stride, start = output_offsets(location, num_frames, num_locations, num_heads, D)
    width = num_heads * D
    head = (head * D)[None, :]
    exists = (sequence < num_sequences)[None, :]

    frames = tl.arange(0, BLOCK_F)
    live = (frames < num_frames)[:, None] & exists
    offsets = (frames * stride)[:, None] + start[None, :]
    rows = qkv_ptr + offsets * 3 + head
    dims = tl.arange(0, BLOCK_D)
    mask = live[:, :, None] & (dims < D)[None, None, :]

    # Every load that can be is in flight before the first of them is needed.
    if BLOCK_Q == BLOCK_F:
        q_low, q_high = _load_halves(rows, live, D, BLOCK_HALF)
    k_low, k_high = _load_halves(rows + width, live, D, BLOCK_HALF)
    value_ptrs = (rows + 2 * width)[:, :, None] + dims[None, None, :]
    v = tl.load(value_ptrs, mask=mask, other=0.0, cache_modifier=".cg")
    v = tl.reshape(v, (BLOCK_F * PACK, BLOCK_D))
    k_low, k_high = _norm_and_rotate(
        k_low, k_high, norm_k_ptr, frames, cos_ptr, sin_ptr, num_frames, EPS, D, QK_NORM, ROPE
    )

    key_row = tl.arange(0, BLOCK_F * PACK)
    query_row = tl.arange(0, BLOCK_Q * PACK)
    attends = (key_row < num_frames * PACK)[None, :]
    if PACK > 1:
        attends = attends & ((query_row % PACK)[:, None] == (key_row % PACK)[None, :])

    if BLOCK_Q == BLOCK_F:
        q_low, q_high = _norm_and_rotate(
            q_low, q_high, norm_q_ptr, frames, cos_ptr, sin_ptr, num_frames, EPS, D, QK_NORM, ROPE
        )
        out = _attend(q_low, q_high, k_low, k_high, v, attends, SCALE_LOG2, DOT_PRECISION)
        out = tl.reshape(out.to(v.dtype), (BLOCK_F, PACK, BLOCK_D))
        tl.store(
            (out_ptr + offsets + head)[:, :, None] + dims[None, None, :],
            out,
            mask=mask,
            cache_modifier=".cs",
        )
    else:
        for first in tl.range(0, num_frames, BLOCK_Q, num_stages=1):
            some = first + tl.arange(0, BLOCK_Q)
            some_live = (some < num_frames)[:, None] & exists
            some_offsets = (some * stride)[:, None] + start[None, :]
            some_low, some_high = _load_halves(
                qkv_ptr + some_offsets * 3 + head, some_live, D, BLOCK_HALF
            )
            some_low, some_high = _norm_and_rotate(
                some_low, some_high, norm_q_ptr, some, cos_ptr, sin_ptr, num_frames,
                EPS, D, QK_NORM, ROPE,
            )  # fmt: skip
            part = _attend(
                some_low, some_high, k_low, k_high, v, attends, SCALE_LOG2, DOT_PRECISION
            )
            part = tl.reshape(part.to(v.dtype), (BLOCK_Q, PACK, BLOCK_D))
            tl.store(
                (out_ptr + some_offsets + head)[:, :, None] + dims[None, None, :],
                part,
                mask=some_live[:, :, None] & (dims < D)[None, None, :],
                cache_modifier=".cs",
            )


@triton.jit
def temporal_attention_blocked_fwd_kernel(
    qkv_ptr,
    norm_q_ptr,
    norm_k_ptr,
    cos_ptr,
    sin_ptr,
    num_frames,
    num_locations,
    num_heads,
    num_sequences,
    out_ptr,
    SCALE_LOG2: tl.constexpr,
    EPS: tl.constexpr,
    D: tl.constexpr,
    QK_NORM: tl.constexpr,
    ROPE: tl.constexpr,
    BLOCK_F: tl.constexpr,
    BLOCK_HALF: tl.constexpr,
    BLOCK_D: tl.constexpr,
    DOT_PRECISION: tl.constexpr,
):
    """Attends BLOCK_F queries of one sequence, over keys in blocks with an online softmax.

    For long fp32 sequences, whose keys and values do not fit in registers: they are read once
    for every block of queries. Arguments as in `temporal_attention_fwd_kernel`.

    Grid: (B·S·N · ceil(F / BLOCK_F),)
    """
    num_blocks = tl.cdiv(num_frames, BLOCK_F)
    sequence = tl.program_id(0) // num_blocks
    location = sequence // num_heads
    stride, start = output_offsets(location, num_frames, num_locations, num_heads, D)
    width = num_heads * D
    head = (sequence % num_heads) * D
    dims = tl.arange(0, BLOCK_D)

    frames = (tl.program_id(0) % num_blocks) * BLOCK_F + tl.arange(0, BLOCK_F)
    live = (frames < num_frames)[:, None]
    offsets = (frames * stride + start)[:, None]
    low, high = _load_halves(qkv_ptr + offsets * 3 + head, live, D, BLOCK_HALF)
    q_low, q_high = _norm_and_rotate(
        low, high, norm_q_ptr, frames, cos_ptr, sin_ptr, num_frames, EPS, D, QK_NORM, ROPE
    )
    peak = tl.full((BLOCK_F,), float("-inf"), tl.float32)
    total = tl.zeros((BLOCK_F,), tl.float32)
    out = tl.zeros((BLOCK_F, BLOCK_D), tl.float32)
    for first in tl.range(0, num_frames, BLOCK_F, num_stages=1):
        keys = first + tl.arange(0, BLOCK_F)
        key_live = (keys < num_frames)[:, None]
        rows = qkv_ptr + (keys * stride + start)[:, None] * 3 + head + width
        low, high = _load_halves(rows, key_live, D, BLOCK_HALF)
        v = tl.load(rows + width + dims[None, :], mask=key_live & (dims < D)[None, :], other=0.0)
        k_low, k_high = _norm_and_rotate(
            low, high, norm_k_ptr, keys, cos_ptr, sin_ptr, num_frames, EPS, D, QK_NORM, ROPE
        )
        logits = dot_logits(q_low, q_high, k_low, k_high, DOT_PRECISION)
        logits = tl.where((keys < num_frames)[None, :], logits * SCALE_LOG2, float("-inf"))
        new_peak = tl.maximum(peak, tl.max(logits, axis=1))
        decay = tl.exp2(peak - new_peak)
        weights = tl.exp2(logits - new_peak[:, None])
        total = total * decay + tl.sum(weights, axis=1)
        out = tl.dot(weights.to(v.dtype), v, out * decay[:, None], input_precision=DOT_PRECISION)
        peak = new_peak
    out = out * (1.0 / total)[:, None]
    tl.store(
        out_ptr + offsets + head + dims[None, :],
        out.to(out_ptr.dtype.element_ty),
        mask=live & (dims < D)[None, :],
    )
