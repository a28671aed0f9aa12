"""Parts that the Triton kernels of temporal attention share: addresses, norm, rotation, products.

A head is kept as two halves of `D`, `low` and `high`, which rotary embedding turns against each
other. Imported only where the package `triton` is.
"""

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit
def output_offsets(location, num_frames, num_locations, num_heads, D: tl.constexpr):
    """Offsets of locations in the output; those in `qkv` are three times as far.

    Args:
        location: Number of a location, or several, counted over all batch rows.
        num_frames: `F`.
        num_locations: `S`.
        num_heads: `N`.

    Returns:
        Elements from a frame to the next one, and the offset of the first frame of `location`;
        in 64 bits, since tensors may hold more than 2^31 elements.
    """
    batch = location // num_locations
    width = num_heads * D
    stride = tl.cast(num_locations, tl.int64) * width
    start = tl.cast(batch, tl.int64) * num_frames * stride + (location % num_locations) * width
    return stride, start


@triton.jit
def load_norm(norm_ptr, D: tl.constexpr, BLOCK_HALF: tl.constexpr):
    """Loads `[D]` weights of a norm as two fp32 vectors `[BLOCK_HALF]`."""
    half = tl.arange(0, BLOCK_HALF)
    inside = half < D // 2
    low = tl.load(norm_ptr + half, mask=inside, other=0.0)
    high = tl.load(norm_ptr + D // 2 + half, mask=inside, other=0.0)
    return low.to(tl.float32), high.to(tl.float32)


@triton.jit
def inverse_rms(low, high, EPS: tl.constexpr, D: tl.constexpr):
    """Inverse root mean square of each row of `[…, BLOCK_HALF]` fp32 tiles: `[…, 1]`."""
    last: tl.constexpr = len(low.shape) - 1
    return tl.expand_dims(
        tl.rsqrt(tl.sum(low * low + high * high, axis=last) * (1.0 / D) + EPS), last
    )


@triton.jit
def rotate(low, high, cos, sin):
    """Rotary embedding of fp32 tiles; `cos` and `sin` are broadcast to them."""
    turned = low * cos - high * sin
    return turned, high * cos + low * sin


@triton.jit
def dot_logits(q_low, q_high, k_low, k_high, DOT_PRECISION: tl.constexpr):
    """Products of `[M, BLOCK_HALF]` queries with `[K, BLOCK_HALF]` keys: `[M, K]` fp32."""
    logits = tl.dot(q_low, tl.trans(k_low), input_precision=DOT_PRECISION)
    return tl.dot(q_high, tl.trans(k_high), logits, input_precision=DOT_PRECISION)
