"""The op inside what Inductor compiles: a chain, and a denoiser packaged ahead of time."""

from __future__ import annotations

import pytest
import torch

from reelserve.kernels.benchmarks.bench_denoiser_step import StepCase
from reelserve.kernels.temporal_attention import temporal_attention, temporal_attention_ref
from reelserve.models.denoiser import DenoiserConfig
from tests.kernels.problems import Problem

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs an NVIDIA GPU"),
]
CHAINS = [Problem(1, 31, 12, heads, 64, torch.bfloat16) for heads in (3, 4)]


@torch.no_grad()
def test_package_of_a_denoiser_runs_the_kernel(tmp_path):
    case = StepCase("small", DenoiserConfig(4, 32, 128, 2, 2, 1), 2, 13, 6, 5)
    module = case.build("cuda").float()
    torch.nn.init.normal_(module.to_velocity.weight, std=0.1)
    inputs = tuple(x.float() if x.is_floating_point() else x for x in case.inputs("cuda"))
    program = torch.export.export(module, inputs, strict=False)
    names = [str(node.target) for node in program.graph.nodes]
    assert names.count("reelserve.temporal_attention.default") == case.config.num_blocks

    package = torch._inductor.aoti_compile_and_package(
        program, package_path=str(tmp_path / "denoiser.pt2")
    )
    loaded = torch._inductor.aoti_load_package(package)
    activities = [torch.profiler.ProfilerActivity.CUDA]
    with torch.profiler.profile(activities=activities) as profile:
        found = loaded(*inputs)
        torch.cuda.synchronize()
    kernels = [event.key for event in profile.key_averages()]
    assert any("temporal_attention_fwd_kernel" in name for name in kernels), kernels
    expected = module(*inputs)
    torch.testing.assert_close(found, expected, rtol=1e-2, atol=1e-2)


@pytest.mark.parametrize("problem", CHAINS, ids=str)
def test_compiled_chain_around_the_op_agrees(problem):
    inputs = problem.inputs("cuda")
    compiled = torch.compile(lambda *given: 2 * temporal_attention(*given), fullgraph=True)
    torch.testing.assert_close(
        compiled(*inputs), 2 * temporal_attention_ref(*inputs), rtol=0.05, atol=0.05
    )
