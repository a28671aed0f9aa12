"""Runs the Triton kernels on a CPU by Triton's interpreter; started with TRITON_INTERPRET=1."""

from __future__ import annotations

import sys
import traceback

import torch

from reelserve.kernels.ahead_of_time import kernel_of
from reelserve.kernels.launch import LaunchConfig, grid_size, kernel_constants, launch_config
from tests.kernels.problems import Problem, assert_as_close_as_torch

MULTIPROCESSORS = 2
# The interpreter multiplies bf16 as if it were integers.
CASES: list[tuple[Problem, LaunchConfig | None] | tuple[Problem, LaunchConfig | None, int]] = [
    (Problem(1, 1, 3, 2, 64, torch.float16), None),
    (Problem(2, 3, 2, 3, 72), None),
    (Problem(1, 8, 3, 1, 40, torch.float16), None),
    (Problem(2, 13, 2, 3, 64, torch.float16), None),
    (Problem(1, 16, 2, 2, 64, torch.float16, qk_norm=False), None),
    (Problem(1, 31, 1, 3, 128, torch.float16), None),
    (Problem(2, 31, 1, 3, 96, torch.float16, rope=False), LaunchConfig(2, 32, 4)),
    (Problem(1, 24, 1, 5, 80, torch.float16, qk_norm=False, rope=False), LaunchConfig(4, 32, 4)),
    (Problem(1, 16, 5, 2, 64, torch.float16, rope=False), None),
    (Problem(2, 31, 3, 4, 64, torch.float16), None),
    (Problem(1, 128, 2, 1, 64, torch.float16, qk_norm=False), None),
    (Problem(2, 48, 1, 2, 64, torch.float16), LaunchConfig(1, 64, 4)),
    (Problem(2, 61, 1, 2, 64, torch.float16), LaunchConfig(1, 32, 4)),
    (Problem(1, 96, 2, 1, 72, torch.float16), None),
    (Problem(1, 128, 1, 1, 128), None),
    (Problem(1, 61, 2, 3, 40), None),
    # Fewer frames than the largest number that the blocks are made for.
    (Problem(2, 4, 3, 2, 64, torch.float16), None, 20),
    (Problem(1, 9, 2, 4, 64, torch.float16), None, 16),
    (Problem(1, 5, 2, 3, 128, torch.float16), None, 61),
    (Problem(1, 7, 3, 3, 72), None, 40),
    (Problem(1, 2, 3, 1, 64, torch.float16), None, 7),
]


def run(problem: Problem, config: LaunchConfig | None, most_frames: int = 0) -> None:
    """Launches one problem into an output full of NaN.

    Args:
        problem: What is attended to.
        config: None: from the table.
        most_frames: That the blocks are made for; 0: as many as the problem has.
    """
    frames = most_frames or problem.f
    inputs = problem.inputs()
    qkv = inputs[0]
    element_bytes = qkv.element_size()
    config = config or launch_config(90, frames, problem.n, problem.d, element_bytes)
    out = qkv.new_full((problem.b, problem.f, problem.s, problem.n * problem.d), float("nan"))
    constants = kernel_constants(
        config,
        frames,
        problem.d,
        scale=problem.d**-0.5,
        eps=1e-6,
        qk_norm=problem.qk_norm,
        rope=problem.rope,
        element_bytes=element_bytes,
        exact=not most_frames,
    )
    sequences = problem.b * problem.s * problem.n
    grid = (grid_size(config, problem.f, sequences, MULTIPROCESSORS),)
    tensors = [qkv if x is None else x for x in inputs]
    sizes = (problem.f, problem.s, problem.n, sequences)
    kernel_of(config)[grid](*tensors, *sizes, out, **constants)
    assert_as_close_as_torch(out, inputs)


def main() -> int:
    """Runs every case, names each on a line of its own and returns how many failed."""
    failed = 0
    for problem, config, *most_frames in CASES:
        try:
            run(problem, config, *most_frames)
        except Exception:
            failed += 1
            traceback.print_exc()
            sys.stdout.write(f"{problem} failed\n")
        else:
            sys.stdout.write(f"{problem} passed\n")
    return failed


if __name__ == "__main__":
    sys.exit(main())
