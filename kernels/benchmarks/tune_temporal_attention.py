"""Times candidates of the launch table on one GPU and prints the rows to commit.

`python -m reelserve.kernels.benchmarks.tune_temporal_attention` takes some minutes; put what it
prints into `_BY_ARCH` of `kernels/launch.py`. Nothing is tuned when the op runs.
"""

from __future__ import annotations

import argparse
import logging
from collections.abc import Iterator

import torch

from reelserve.kernels.benchmarks.bench_temporal_attention import BenchmarkRow
from reelserve.kernels.benchmarks.timing import copy_gb_per_s, measure_times
from reelserve.kernels.launch import (
    MIN_TILE_ROWS,
    LaunchConfig,
    padded_frames,
    padded_head_dim,
)
from reelserve.kernels.temporal_attention import launch

_log = logging.getLogger(__name__)

ROWS = (
    BenchmarkRow(2, 16, 1024, 16, 64),
    BenchmarkRow(1, 16, 1024, 20, 128),
    BenchmarkRow(2, 32, 1024, 16, 64),
    BenchmarkRow(1, 31, 1536, 20, 128),
    BenchmarkRow(2, 48, 1024, 16, 64),
    BenchmarkRow(1, 61, 1536, 20, 128),
    BenchmarkRow(2, 128, 1024, 16, 64),
    BenchmarkRow(1, 121, 384, 20, 128),
)
"""One for each row of the table."""
SHARED_BYTES = 227 * 1024
"""Registers of a multiprocessor of an H100."""


def candidates(num_frames: int, head_dim: int) -> Iterator[LaunchConfig]:
    """Every launch that could be best.

    Args:
        num_frames: `F`, above 8.
        head_dim: `D`.
    """
    block, width = padded_frames(num_frames), padded_head_dim(head_dim)
    for pack in (1, 2, 4):
        for block_q in (block, block // 2, block // 4):
            if block_q < MIN_TILE_ROWS or (pack > 1 and block_q < block) or pack * block > 128:
                continue
            for num_warps in (1, 2, 4, 8):
                # 1 to 8 KiB of queries a warp.
                if 1024 <= 2 * pack * block * width // num_warps <= 8192:
                    yield LaunchConfig(pack, block_q, num_warps)
                    if block_q == block:
                        yield from _pipelined(pack, block, width, num_warps)


def _pipelined(pack: int, block: int, width: int, num_warps: int) -> Iterator[LaunchConfig]:
    """Launches of the persistent kernel that shared memory and half of the registers allow."""
    for num_stages in (3, 4):
        stage_bytes = 3 * 2 * pack * block * width
        for programs in (1, 2, 4):
            fits = (num_stages - 1) * stage_bytes * programs <= SHARED_BYTES
            if fits and num_warps * programs in (4, 8):
                yield LaunchConfig(pack, block, num_warps, num_stages=num_stages, programs=programs)


def tune(row: BenchmarkRow, copy: float) -> list[tuple[float, LaunchConfig]]:
    """Times every candidate on one row.

    Returns:
        Share of copy bandwidth and candidate, best first.
    """
    inputs = row.inputs("cuda")
    found = []
    for config in candidates(row.F, row.D):

        def call(config: LaunchConfig = config) -> torch.Tensor:
            return launch(*inputs, scale=row.D**-0.5, eps=1e-6, config=config)

        try:
            times = measure_times(call, "cuda", seconds=0.1)
        except Exception as error:
            _log.info("%s %s: %s", row, config, str(error).splitlines()[0])
            continue
        share = row.moved_bytes / times.p50_ms / 1e6 / copy
        _log.info("F%d D%d %s: %.3f of copy", row.F, row.D, config, share)
        found.append((share, config))
    return sorted(found, key=lambda pair: pair[0], reverse=True)


def main() -> None:
    """Tunes what is asked for."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, nargs="*", default=range(len(ROWS)))
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    gpu, copy = torch.cuda.get_device_name(), copy_gb_per_s("cuda")
    _log.info("%s: copy %.0f GB/s", gpu, copy)
    lines = []
    for row in (ROWS[index] for index in arguments.rows):
        share, config = tune(row, copy)[0]
        shape = f"B{row.B} F{row.F} S{row.S} N{row.N} D{row.D}"
        key = (max(MIN_TILE_ROWS, padded_frames(row.F)), padded_head_dim(row.D))
        lines.append(f"    # {gpu}, {shape} {row.dtype} norm + RoPE: {share:.3f} of copy.")
        lines.append(f"    {key}: {config},")
    _log.info("rows of the launch table:\n%s", "\n".join(lines))


if __name__ == "__main__":
    main()
