"""Times temporal attention against PyTorch's own, as shares of copy bandwidth.

`python -m reelserve.kernels.benchmarks.bench_temporal_attention` on a machine with one GPU runs
the kernel's tests first and reports nothing if one fails. It writes
`docs/results/temporal_attention_<gpu>.csv`; `plot_temporal_attention` draws it. `--smoke` runs
every provider on tiny shapes on a CPU, to show that it runs.
"""

from __future__ import annotations

import argparse
import dataclasses
import logging
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import torch

from reelserve.kernels.benchmarks.providers import PROVIDERS, Inputs
from reelserve.kernels.benchmarks.timing import (
    Times,
    copy_gb_per_s,
    machine,
    measure_times,
    require_green_tests,
    write_rows,
)
from reelserve.pipeline.output_place import output_file
from reelserve.pipeline.provenance import commit

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class BenchmarkRow:
    """One shape and variant; field names are columns of the CSV."""

    B: int
    F: int
    S: int
    N: int
    D: int
    dtype: str = "bf16"
    qk_norm: bool = True
    rope: bool = True

    @property
    def moved_bytes(self) -> int:
        """The floor: packed projections read once, output written once."""
        return 4 * self.B * self.F * self.S * self.N * self.D * torch_dtype(self.dtype).itemsize

    def inputs(self, device: str) -> Inputs:
        """Random inputs."""
        qkv = torch.randn(
            self.B, self.F, self.S, 3, self.N, self.D, dtype=torch_dtype(self.dtype), device=device
        )
        norms = [torch.rand(self.D, device=device) + 0.5 for _ in range(2)]
        angles = torch.rand(self.F, self.D // 2, device=device)
        return (
            qkv,
            *(norms if self.qk_norm else (None, None)),
            *((angles.cos(), angles.sin()) if self.rope else (None, None)),
        )


SHAPES = (
    (1, 31, 384, 20, 128),
    (1, 31, 1536, 20, 128),
    (2, 16, 1024, 16, 64),
    (2, 32, 1024, 16, 64),
    (1, 61, 1536, 20, 128),
    (1, 16, 4096, 8, 64),
    (2, 31, 3600, 24, 128),
    (2, 13, 1024, 16, 64),
    (2, 24, 1024, 16, 64),
    (2, 48, 1024, 16, 64),
    (2, 96, 1024, 16, 64),
    (2, 128, 1024, 16, 64),
    (2, 32, 1024, 16, 72),
)
ROWS = tuple(
    BenchmarkRow(*shape, qk_norm=fused, rope=fused) for shape in SHAPES for fused in (True, False)
)
SMOKE_ROWS = (BenchmarkRow(2, 5, 3, 2, 64), BenchmarkRow(1, 4, 2, 1, 40, "fp32", False, False))
COLUMNS = (
    "git_sha", "gpu", "driver", "torch", "triton",
    *(field.name for field in dataclasses.fields(BenchmarkRow)),
    "provider", "p20_ms", "p50_ms", "p80_ms", "gb_per_s", "copy_gb_per_s", "share_of_copy",
)  # fmt: skip


def torch_dtype(name: str) -> torch.dtype:
    """`fp16`, `bf16` or `fp32` as torch's."""
    return {"fp16": torch.float16, "bf16": torch.bfloat16, "fp32": torch.float32}[name]


def bench_rows(
    rows: Iterable[BenchmarkRow], providers: Iterable[str], device: str
) -> Iterator[dict[str, object]]:
    """Times every provider on every row.

    Yields:
        Rows of the CSV; a provider that fails on a shape has none there, and is logged.
    """
    copy = copy_gb_per_s(device, *(() if device == "cuda" else (2**20,)))
    where = {"git_sha": commit(), **machine(device)}
    for row in rows:
        torch.manual_seed(0)
        inputs = row.inputs(device)
        for provider in providers:
            try:
                times = measure_times(PROVIDERS[provider](inputs), device)
            except Exception:
                _log.exception("%s failed on %s", provider, row)
                continue
            figures = _figures(row, provider, times, copy)
            _log.info("%s %s: %s", row, provider, f"{figures['share_of_copy']:.3f} of copy")
            yield {**where, **dataclasses.asdict(row), **figures}


def _figures(row: BenchmarkRow, provider: str, times: Times, copy: float) -> dict[str, object]:
    gb_per_s = row.moved_bytes / times.p50_ms / 1e6
    return {
        "provider": provider,
        **{name: round(value, 5) for name, value in dataclasses.asdict(times).items()},
        "gb_per_s": round(gb_per_s, 1),
        "copy_gb_per_s": round(copy, 1),
        "share_of_copy": round(gb_per_s / copy, 4),
    }


def main() -> None:
    """Times what is asked for."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--smoke", action="store_true", help="tiny shapes on a CPU")
    parser.add_argument("--output", type=output_file, help="CSV; none with --smoke if left out")
    parser.add_argument("--providers", nargs="*", choices=PROVIDERS, default=list(PROVIDERS))
    parser.add_argument("--rows", type=int, nargs="*", help="indices of rows, for a closer look")
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    if arguments.smoke:
        rows, device = SMOKE_ROWS, "cpu"
    else:
        rows, device = ROWS, "cuda"
        require_green_tests(("tests/kernels",))
    if arguments.rows:
        rows = tuple(rows[index] for index in arguments.rows)
    found = bench_rows(rows, arguments.providers, device)
    write_rows(found, COLUMNS, arguments.output, "temporal_attention")


if __name__ == "__main__":
    main()
