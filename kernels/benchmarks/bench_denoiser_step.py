"""Times a denoising step with the fused op against the same model with SDPA.

`python -m reelserve.kernels.benchmarks.bench_denoiser_step` on a machine with one GPU runs the
kernel's and the denoiser's tests first and writes `docs/results/denoiser_step_<gpu>.csv`. The
large models have random weights. `--smoke` runs a small one on a CPU, to show that it runs.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import logging
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import torch

from reelserve.kernels.benchmarks.timing import (
    machine,
    measure_times,
    require_green_tests,
    write_rows,
)
from reelserve.kernels.temporal_attention import temporal_attention_ref
from reelserve.models import denoiser as denoiser_module
from reelserve.models.denoiser import (
    SIZE_3B,
    SIZE_10B,
    WORLD,
    DenoiserConfig,
    SpaceTimeDenoiser,
)
from reelserve.pipeline.output_place import output_file
from reelserve.pipeline.provenance import commit

_log = logging.getLogger(__name__)

TEXT_TOKENS = 128
TESTS = ("tests/kernels/test_temporal_attention_gpu.py", "tests/models/test_denoiser.py")
COLUMNS = (
    "git_sha", "gpu", "driver", "torch", "triton", "model", "B", "F", "H", "W", "dtype",
    "attention", "compiled", "p20_ms", "p50_ms", "p80_ms",
)  # fmt: skip


@dataclass(frozen=True)
class StepCase:
    """A model and the latents of a step.

    Args:
        model: Name in the results.
        config: Its size.
        batch: Rows `B`: two where guidance is on.
        frames: Latent frames `F`.
        height: Latent rows.
        width: Latent columns.
    """

    model: str
    config: DenoiserConfig
    batch: int
    frames: int
    height: int
    width: int

    def build(self, device: str) -> SpaceTimeDenoiser:
        """The model with random weights, in bf16."""
        torch.manual_seed(0)
        with torch.device(device):
            module = SpaceTimeDenoiser(self.config)
        return module.to(torch.bfloat16).eval().requires_grad_(False)

    def inputs(self, device: str) -> tuple[torch.Tensor, ...]:
        """Random latents, noise level and text."""
        shape = (self.batch, self.config.in_channels, self.frames, self.height, self.width)
        return (
            torch.randn(shape, dtype=torch.bfloat16, device=device),
            torch.full((self.batch,), 500.0, device=device),
            torch.randn(
                self.batch, TEXT_TOKENS, self.config.text_dim, dtype=torch.bfloat16, device=device
            ),
            torch.ones(self.batch, TEXT_TOKENS, dtype=torch.int64, device=device),
        )


CASES = (
    StepCase("world", WORLD, 1, 20, 8, 8),
    StepCase("3B", SIZE_3B, 1, 31, 16, 24),
    StepCase("3B", SIZE_3B, 1, 31, 32, 48),
    StepCase("10B", SIZE_10B, 1, 31, 16, 24),
    StepCase("10B", SIZE_10B, 1, 31, 32, 48),
)
SMOKE_CASES = (StepCase("smoke", DenoiserConfig(4, 8, 128, 2, 1, 1), 1, 3, 2, 2),)


@contextlib.contextmanager
def attention_by(name: str) -> Iterator[None]:
    """Sets what the denoiser's temporal attention calls: `fused`, the op, or `sdpa`."""
    fused = denoiser_module.temporal_attention
    denoiser_module.temporal_attention = fused if name == "fused" else temporal_attention_ref
    try:
        yield
    finally:
        denoiser_module.temporal_attention = fused


def time_step(
    module: SpaceTimeDenoiser, inputs: tuple[torch.Tensor, ...], device: str, compiled: bool
) -> dict[str, float]:
    """Milliseconds of one step under autocast to bf16.

    Args:
        module: The model.
        inputs: Arguments of its `forward`.
        device: `cuda` or `cpu`.
        compiled: Whether each block is compiled.
    """
    torch._dynamo.reset()
    for block in module.blocks:
        block._compiled_call_impl = None
        if compiled:
            block.compile(dynamic=False)

    def step() -> torch.Tensor:
        with torch.no_grad(), torch.autocast(device, torch.bfloat16, cache_enabled=False):
            return module(*inputs)

    times = measure_times(step, device, seconds=1.0)
    return {name: round(value, 4) for name, value in dataclasses.asdict(times).items()}


def bench_cases(
    cases: Iterable[StepCase], device: str, modes: Iterable[bool] = (False, True)
) -> Iterator[dict[str, object]]:
    """Times each case with both kinds of attention, eager (False) and compiled (True)."""
    where = {"git_sha": commit(), **machine(device)}
    built: tuple[DenoiserConfig, SpaceTimeDenoiser] | None = None
    for case in cases:
        if built is None or built[0] != case.config:
            built = None
            built = case.config, case.build(device)
        shape = {"B": case.batch, "F": case.frames, "H": case.height, "W": case.width}
        for compiled in modes:
            for attention in ("fused", "sdpa"):
                with attention_by(attention):
                    times = time_step(built[1], case.inputs(device), device, compiled)
                row = {"model": case.model, **shape, "dtype": "bf16", "attention": attention}
                _log.info("%s %s compiled=%s: %s", case, attention, compiled, times)
                yield {**where, **row, "compiled": compiled, **times}


def main() -> None:
    """Times what is asked for."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--smoke", action="store_true", help="a small model on a CPU, eager")
    parser.add_argument("--output", type=output_file)
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    if arguments.smoke:
        found = bench_cases(SMOKE_CASES, "cpu", modes=(False,))
    else:
        require_green_tests(TESTS)
        found = bench_cases(CASES, "cuda")
    write_rows(found, COLUMNS, arguments.output, "denoiser_step")


if __name__ == "__main__":
    main()
