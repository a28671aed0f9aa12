"""Launches one problem of each kernel; started under compute-sanitizer."""

from __future__ import annotations

import torch

from reelserve.kernels.temporal_attention import temporal_attention
from tests.kernels.problems import Problem

PROBLEMS = (
    Problem(2, 5, 3, 3, 64, torch.bfloat16),
    Problem(1, 31, 7, 4, 128, torch.bfloat16),
    Problem(1, 61, 3, 2, 72, torch.float32),
)


if __name__ == "__main__":
    for problem in PROBLEMS:
        temporal_attention(*problem.inputs("cuda"))
    torch.cuda.synchronize()
