"""The Triton kernel of temporal attention that loads a tile while it attends another.

Equation, layout and memory traffic stand in `temporal_attention.py`, sizes of blocks in
`launch.py`. Imported only where the package `triton` is.
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
def _load_norm_rows(norm_ptr, D: tl.constexpr, BLOCK_HALF: tl.constexpr):
    """Loads `[D]` weights as two `[1, BLOCK_HALF]` rows, so that the loop broadcasts them alone."""
    low, high = load_norm(norm_ptr, D, BLOCK_HALF)
    return low[None, :], high[None, :]


@triton.jit
def _norm_and_rotate(
    low,
    high,
    low_weight,
    high_weight,
    cos,
    sin,
    EPS: tl.constexpr,
    D: tl.constexpr,
    QK_NORM: tl.constexpr,
    ROPE: tl.constexpr,
):
    """RMS norm and rotary embedding in fp32 registers.

    Args:
        low: `[ROWS, BLOCK_HALF]`.
        high: Like `low`.
        low_weight: `[1, BLOCK_HALF]` fp32.
        high_weight: Like `low_weight`.
        cos: `[ROWS, BLOCK_HALF]` fp32.
        sin: Like `cos`.

    Returns:
        Two `[ROWS, BLOCK_HALF]` tiles of the dtype of `low`.
    """
    dtype: tl.constexpr = low.dtype
    if QK_NORM:
        low = low.to(tl.float32)
        high = high.to(tl.float32)
        scale = inverse_rms(low, high, EPS, D)
        low = low * scale * low_weight
        high = high * scale * high_weight
    if ROPE:
        low = low.to(tl.float32)
        high = high.to(tl.float32)
        low, high = rotate(low, high, cos, sin)
    return low.to(dtype), high.to(dtype)


@triton.jit
def temporal_attention_pipelined_fwd_kernel(
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
    FULL: tl.constexpr,
    PACK: tl.constexpr,
    BLOCK_HALF: tl.constexpr,
    BLOCK_D: tl.constexpr,
    DOT_PRECISION: tl.constexpr,
    NUM_STAGES: tl.constexpr,
):
    """Attends along the frames of one tile after another, each `PACK` heads of a location.

    A program stays and takes every `num_programs`-th tile: while it attends one, asynchronous
    copies bring the next `NUM_STAGES - 2` into shared memory, so that the memory never waits
    for the arithmetic. What all tiles share, the rotary tables and the weights of the norm, is
    loaded once into registers. A tile row is (head, frame); products between rows of different
    heads are masked out.

    Args:
        qkv_ptr: `[B, F, S, 3, N, D]`, contiguous.
        norm_q_ptr: `[D]`; any pointer without QK_NORM.
        norm_k_ptr: Like `norm_q_ptr`.
        cos_ptr: `[F, D/2]`, contiguous; any pointer without ROPE.
        sin_ptr: Like `cos_ptr`.
        num_frames: `F`, at most BLOCK_F, and equal to it where FULL.
        num_locations: `S`.
        num_heads: `N`, a multiple of PACK.
        num_sequences: `B·S·N`.
        out_ptr: `[B, F, S, N·D]`, contiguous.

    Grid: any.
    """
    row = tl.arange(0, BLOCK_F * PACK)
    frame = row % BLOCK_F
    slot = row // BLOCK_F
    half = tl.arange(0, BLOCK_HALF)
    dims = tl.arange(0, BLOCK_D)
    live = frame < num_frames
    half_mask = live[:, None] & (half < D // 2)[None, :]
    mask = live[:, None] & (dims < D)[None, :]

    width = num_heads * D
    stride, _ = output_offsets(0, num_frames, num_locations, num_heads, D)
    offsets = frame * stride
    rows = qkv_ptr + (offsets * 3 + slot * D)[:, None]
    half_ptrs = rows + half[None, :]
    value_ptrs = rows + dims[None, :] + 2 * width
    out_ptrs = out_ptr + (offsets + slot * D)[:, None] + dims[None, :]

    cos = 0.0
    sin = 0.0
    q_low_weight = 0.0
    q_high_weight = 0.0
    k_low_weight = 0.0
    k_high_weight = 0.0
    if ROPE:
        table = frame[:, None] * (D // 2) + half[None, :]
        cos = tl.load(cos_ptr + table, mask=half_mask, other=0.0).to(tl.float32)
        sin = tl.load(sin_ptr + table, mask=half_mask, other=0.0).to(tl.float32)
    if QK_NORM:
        q_low_weight, q_high_weight = _load_norm_rows(norm_q_ptr, D, BLOCK_HALF)
        k_low_weight, k_high_weight = _load_norm_rows(norm_k_ptr, D, BLOCK_HALF)
    attends = live[None, :]
    if PACK > 1:
        attends = attends & (slot[:, None] == slot[None, :])

    for tile in tl.range(
        tl.program_id(0), num_sequences // PACK, tl.num_programs(0), num_stages=NUM_STAGES
    ):
        location = tile * PACK // num_heads
        head = (tile * PACK % num_heads) * D
        _, start = output_offsets(location, num_frames, num_locations, num_heads, D)
        at = start * 3 + head
        q_low = tl.load(half_ptrs + at, mask=half_mask, other=0.0)
        q_high = tl.load(half_ptrs + (at + D // 2), mask=half_mask, other=0.0)
        k_low = tl.load(half_ptrs + (at + width), mask=half_mask, other=0.0)
        k_high = tl.load(half_ptrs + (at + width + D // 2), mask=half_mask, other=0.0)
        v = tl.load(value_ptrs + at, mask=mask, other=0.0)
        q_low, q_high = _norm_and_rotate(
            q_low, q_high, q_low_weight, q_high_weight, cos, sin, EPS, D, QK_NORM, ROPE
        )
        k_low, k_high = _norm_and_rotate(
            k_low, k_high, k_low_weight, k_high_weight, cos, sin, EPS, D, QK_NORM, ROPE
        )
        logits = dot_logits(q_low, q_high, k_low, k_high, DOT_PRECISION)
        if PACK > 1 or not FULL:
            logits = tl.where(attends, logits, float("-inf"))
        peak = tl.max(logits, axis=1) * SCALE_LOG2
        weights = tl.exp2(logits * SCALE_LOG2 - peak[:, None])
        total = tl.sum(weights, axis=1)
        out = tl.dot(weights.to(v.dtype), v, input_precision=DOT_PRECISION)
        out = (out * (1.0 / total)[:, None]).to(v.dtype)
        tl.store(out_ptrs + (start + head), out, mask=mask, cache_modifier=".cs")
