"""The kernel on a GPU: `make test-gpu`."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from reelserve.kernels.launch import HEAD_DIMS
from reelserve.kernels.temporal_attention import temporal_attention
from tests.kernels.problems import Problem, assert_as_close_as_torch

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs an NVIDIA GPU"),
]
FP16, BF16, FP32 = torch.float16, torch.bfloat16, torch.float32
PROBLEMS = [
    *(Problem(2, f, 7, 3, 64, BF16) for f in (1, 2, 3, 5, 8, 9, 13, 16, 24, 31, 32, 48, 61)),
    *(Problem(1, f, 5, 2, 128, BF16) for f in (1, 7, 16, 31, 33, 64, 96, 127, 128)),
    *(Problem(2, 21, 5, 3, d, FP16) for d in HEAD_DIMS),
    *(Problem(2, f, 5, 3, 80, FP32) for f in (1, 4, 13, 31, 61, 128)),
    *(Problem(1, 100, 3, 1, d, FP32) for d in HEAD_DIMS),
    *(Problem(2, 31, 6, 5, 72, BF16, *fused) for fused in ((0, 0), (1, 0), (0, 1))),
    Problem(3, 16, 30_000, 1, 64, BF16),
    # Heads that fill tiles: where the architecture has a row for it, programs stay.
    *(Problem(2, f, 9, 4, 64, BF16) for f in (13, 16, 24, 31, 32, 48, 61, 64, 96, 128)),
    *(Problem(1, f, 67, 2, d, FP16) for f in (16, 31, 61) for d in HEAD_DIMS),
    *(Problem(2, 32, 5, 6, 64, BF16, *fused) for fused in ((0, 0), (1, 0), (0, 1))),
    Problem(3, 16, 30_000, 2, 64, BF16),
]
SANITIZER = shutil.which("compute-sanitizer")


@pytest.fixture(autouse=True)
def poisoned_outputs(monkeypatch):
    """What is not written stays NaN."""
    empty = torch.empty

    def nan_filled(*args, **kwargs):
        made = empty(*args, **kwargs)
        return made.fill_(float("nan")) if made.is_floating_point() else made

    monkeypatch.setattr(torch, "empty", nan_filled)


@pytest.mark.parametrize("problem", PROBLEMS, ids=str)
def test_kernel_is_as_close_to_fp64_as_torch(problem):
    inputs = problem.inputs("cuda")
    assert_as_close_as_torch(temporal_attention(*inputs), inputs)


def test_kernel_reaches_elements_beyond_32_bits():
    problem = Problem(1, 17, 66_000, 16, 40, BF16, False, False)
    qkv = torch.empty(1, 17, 66_000, 3, 16, 40, dtype=BF16, device="cuda").normal_()
    assert qkv.numel() > 2**31
    out = temporal_attention(qkv)
    last = qkv[:, :, -5:].contiguous()
    assert_as_close_as_torch(out[:, :, -5:].contiguous(), (last, None, None, None, None))
    assert out.shape == (1, problem.f, problem.s, problem.n * problem.d)


def test_permuting_locations_permutes_the_output():
    qkv, *rest = Problem(1, 31, 37, 4, 64, BF16).inputs("cuda")
    order = torch.randperm(37, device="cuda")
    expected = temporal_attention(qkv, *rest)[:, :, order]
    assert torch.equal(temporal_attention(qkv[:, :, order].contiguous(), *rest), expected)


def test_one_frame_returns_its_values():
    qkv, *rest = Problem(2, 1, 9, 5, 64, BF16).inputs("cuda")
    assert torch.equal(temporal_attention(qkv, *rest), qkv[:, :, :, 2].flatten(-2))


def test_adding_a_constant_to_all_logits_changes_nothing():
    qkv = Problem(1, 24, 5, 3, 64, FP32, False, False).inputs("cuda")[0]
    qkv[:, :, :, 1, :, 0] = 1
    moved = qkv.clone()
    moved[:, :, :, 0, :, 0] += 20
    torch.testing.assert_close(
        temporal_attention(moved), temporal_attention(qkv), rtol=1e-4, atol=1e-5
    )


def test_op_is_registered_as_torch_asks():
    inputs = Problem(1, 13, 2, 2, 64, BF16).inputs("cuda")
    torch.library.opcheck(
        torch.ops.reelserve.temporal_attention.default,
        inputs,
        test_utils=("test_schema", "test_autograd_registration", "test_faketensor"),
    )


@pytest.mark.skipif(SANITIZER is None, reason="needs compute-sanitizer, of the CUDA toolkit")
@pytest.mark.parametrize("tool", ["memcheck", "racecheck"])
def test_kernels_are_clean_under_the_sanitizer(tool):
    options = ["--tool", tool, "--error-exitcode", "9", "--kernel-regex", "kns=temporal_attention"]
    done = subprocess.run(
        [SANITIZER, *options, sys.executable, "-m", "tests.kernels.sanitized"],
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    expected = "ERROR SUMMARY: 0 errors" if tool == "memcheck" else "0 hazards displayed"
    assert expected in done.stdout
