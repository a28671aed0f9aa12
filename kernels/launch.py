"""Sizes of blocks of the temporal-attention kernel, by architecture, frames and head width.

A fixed table: nothing is tuned at run time, so an exported graph always runs the kernel that
was tested. `kernels/benchmarks/tune_temporal_attention.py` times the candidates on a GPU and
prints the rows to commit.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

MAX_FRAMES = 128
HEAD_DIMS = (40, 64, 72, 80, 96, 128)
MIN_TILE_ROWS = 16
"""The fewest rows that a tensor core multiplies."""
MAX_SEQUENCES = 2**31 // 4
"""Programs are counted in 32 bits, and a sequence has at most four."""


@dataclass(frozen=True)
class LaunchConfig:
    """How a problem is cut into programs.

    Args:
        pack: Sequences a program attends to at once: neighbouring heads of one location.
        block_q: Frames whose queries are attended at once; the block of all frames, or fewer.
        num_warps: Warps of a program.
        blocked: Keys go by in blocks of `block_q` too, with an online softmax.
        num_stages: Pipeline stages of the persistent kernel; 0 selects the one-tile kernel.
        programs: Programs of a multiprocessor, for the persistent kernel.
    """

    pack: int
    block_q: int
    num_warps: int
    blocked: bool = False
    num_stages: int = 0
    programs: int = 0


_Table = dict[tuple[int, int], LaunchConfig]
"""By the padded number of frames and the padded head width."""

# Chosen without a GPU from code compiled for sm_90: the fewest instructions per byte among the
# candidates that spill nothing and let at least 70 KB of loads be in flight on a multiprocessor.
_SIXTEEN_BIT: _Table = {
    (16, 64): LaunchConfig(pack=1, block_q=16, num_warps=1),
    (16, 128): LaunchConfig(pack=2, block_q=16, num_warps=4),
    (32, 64): LaunchConfig(pack=2, block_q=32, num_warps=4),
    (32, 128): LaunchConfig(pack=2, block_q=32, num_warps=4),
    (64, 64): LaunchConfig(pack=1, block_q=32, num_warps=4),
    (64, 128): LaunchConfig(pack=1, block_q=32, num_warps=4),
    (128, 64): LaunchConfig(pack=1, block_q=32, num_warps=4),
    (128, 128): LaunchConfig(pack=1, block_q=32, num_warps=8),
}
_THIRTY_TWO_BIT: _Table = {
    (16, 64): LaunchConfig(pack=2, block_q=16, num_warps=2),
    (16, 128): LaunchConfig(pack=1, block_q=16, num_warps=8),
    (32, 64): LaunchConfig(pack=1, block_q=32, num_warps=4),
    (32, 128): LaunchConfig(pack=1, block_q=32, num_warps=8),
    (64, 64): LaunchConfig(pack=1, block_q=32, num_warps=2, blocked=True),
    (64, 128): LaunchConfig(pack=1, block_q=32, num_warps=8, blocked=True),
    (128, 64): LaunchConfig(pack=1, block_q=32, num_warps=2, blocked=True),
    (128, 128): LaunchConfig(pack=1, block_q=32, num_warps=8, blocked=True),
}
_BY_ARCH: dict[int, _Table] = {
    # Measured on an H100 80GB HBM3, bf16 with norm and rotary embedding, in shares of copy
    # bandwidth: `kernels/benchmarks/tune_temporal_attention.py`, 2026-11-23.
    90: {
        # B2 F16 S1024 N16 D64: 0.925.
        (16, 64): LaunchConfig(pack=2, block_q=16, num_warps=2, num_stages=3, programs=4),
        # B1 F16 S1024 N20 D128: 0.952.
        (16, 128): LaunchConfig(pack=1, block_q=16, num_warps=2, num_stages=3, programs=4),
        # B2 F32 S1024 N16 D64: 0.923.
        (32, 64): LaunchConfig(pack=2, block_q=32, num_warps=4, num_stages=3, programs=2),
        # B1 F31 S1536 N20 D128: 0.965.
        (32, 128): LaunchConfig(pack=1, block_q=32, num_warps=4, num_stages=3, programs=2),
        # B2 F48 S1024 N16 D64: 0.873.
        (64, 64): LaunchConfig(pack=1, block_q=64, num_warps=4, num_stages=4, programs=2),
        # B1 F61 S1536 N20 D128: 0.957.
        (64, 128): LaunchConfig(pack=1, block_q=64, num_warps=4, num_stages=4, programs=1),
        # B2 F128 S1024 N16 D64: 0.842.
        (128, 64): LaunchConfig(pack=1, block_q=128, num_warps=8, num_stages=4, programs=1),
        # B1 F121 S384 N20 D128: 0.428; blocks of 64 by 4 warps reach 0.577 and spill.
        (128, 128): LaunchConfig(pack=1, block_q=64, num_warps=8),
    },
    # Two sequences spill: 8 bytes a thread at D = 64, 24 at D = 80 in fp16.
    120: {
        (32, 64): LaunchConfig(pack=1, block_q=32, num_warps=2),
        (32, 128): LaunchConfig(pack=1, block_q=32, num_warps=4),
    },
}
"""Where an architecture differs, 16-bit. A row that was measured names GPU and benchmark row."""

MULTIPROCESSORS = {90: 132}
"""SM count assumed for persistent kernels compiled without a GPU."""


def padded_frames(num_frames: int) -> int:
    """The power of two that frames are padded to: 1 to 128."""
    return 1 << (num_frames - 1).bit_length()


def padded_head_dim(head_dim: int) -> int:
    """The power of two that a head is padded to: 64 or 128."""
    return 64 if head_dim <= 64 else 128


def launch_config(
    arch: int, num_frames: int, num_heads: int, head_dim: int, element_bytes: int = 2
) -> LaunchConfig:
    """Looks up how a problem is launched.

    Args:
        arch: Compute capability, such as 90.
        num_frames: `F`, 1 to 128.
        num_heads: `N`. The persistent kernel wants a multiple of `pack`.
        head_dim: `D`.
        element_bytes: 2 or 4.
    """
    padded = padded_frames(num_frames)
    key = (max(MIN_TILE_ROWS, padded), padded_head_dim(head_dim))
    config = (_SIXTEEN_BIT if element_bytes == 2 else _THIRTY_TWO_BIT)[key]
    special = _BY_ARCH.get(arch, {}).get(key) if element_bytes == 2 else None
    # Short sequences share tiles in the kernel whose programs do not stay.
    if special and not (
        special.num_stages and (padded < MIN_TILE_ROWS or num_heads % special.pack)
    ):
        config = special
    if padded < MIN_TILE_ROWS:
        # Short sequences share a tile of the tensor cores.
        return LaunchConfig(config.pack * MIN_TILE_ROWS // padded, padded, config.num_warps)
    return config


def kernel_constants(
    config: LaunchConfig,
    num_frames: int,
    head_dim: int,
    *,
    scale: float,
    eps: float,
    qk_norm: bool,
    rope: bool,
    element_bytes: int,
    exact: bool = True,
) -> dict[str, int | float | bool | str]:
    """Compile-time arguments of the kernel that `config` names.

    Args:
        config: From `launch_config`.
        num_frames: `F`, or the largest where a graph leaves it free.
        head_dim: `D`.
        scale: Factor of the logits.
        eps: Added to the mean square.
        qk_norm: Whether queries and keys are normalised.
        rope: Whether they are rotated.
        element_bytes: 2 or 4.
        exact: Whether a launch has exactly `num_frames`, never fewer.
    """
    constants: dict[str, int | float | bool | str] = {
        "SCALE_LOG2": scale * math.log2(math.e),
        "EPS": eps,
        "D": head_dim,
        "QK_NORM": qk_norm,
        "ROPE": rope,
        "BLOCK_F": config.block_q if config.blocked else padded_frames(num_frames),
        "BLOCK_HALF": padded_head_dim(head_dim) // 2,
        "BLOCK_D": padded_head_dim(head_dim),
        # Three products on tensor cores instead of one in fp32 lanes, whose operands spill.
        "DOT_PRECISION": "tf32x3" if element_bytes == 4 else "ieee",
    }
    if config.num_stages:
        full = exact and num_frames == padded_frames(num_frames)
        constants |= {"PACK": config.pack, "FULL": full, "NUM_STAGES": config.num_stages}
    elif not config.blocked:
        constants |= {"PACK": config.pack, "BLOCK_Q": config.block_q}
    return constants


def grid_size(
    config: LaunchConfig, num_frames: int, num_sequences: int, multiprocessors: int
) -> int:
    """Programs of a launch: `num_sequences` is `B·S·N`."""
    if config.num_stages:
        return config.programs * multiprocessors
    if config.blocked:
        return num_sequences * -(-num_frames // config.block_q)
    return -(-num_sequences // config.pack)
