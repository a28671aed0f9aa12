"""Our schedules step for step beside diffusers' own."""

from __future__ import annotations

import numpy as np
import pytest
import torch

pytest.importorskip("diffusers", reason="diffusers is not installed: pip install '.[families]'")

from diffusers import DDIMScheduler, FlowMatchEulerDiscreteScheduler
from diffusers.pipelines.ltx.pipeline_ltx import calculate_shift

from reelserve.pipeline.ddim import DDIMSpec
from reelserve.pipeline.scheduler import DynamicShift, FlowMatchSpec


def outputs(steps: int) -> np.ndarray:
    return np.random.default_rng(steps).standard_normal((steps, 4, 3, 2, 2), dtype=np.float32)


def run_ours(schedule, given: np.ndarray) -> np.ndarray:
    latents = given[0]
    for index, output in enumerate(given):
        latents, _ = schedule.step(index, latents, output)
    return latents


def run_theirs(scheduler, given: np.ndarray) -> np.ndarray:
    latents = torch.from_numpy(given[0])
    for timestep, output in zip(scheduler.timesteps, given, strict=True):
        latents = scheduler.step(torch.from_numpy(output), timestep, latents).prev_sample
    return latents.numpy()


@pytest.mark.parametrize("steps", [1, 2, 8, 50])
@pytest.mark.parametrize("tokens", [32, 1024, 11904])
@pytest.mark.parametrize("terminal", [None, 0.1])
def test_flow_match_with_a_shift_by_tokens(steps, tokens, terminal):
    if terminal and steps == 1:
        pytest.skip("one level of 1 cannot be stretched; diffusers divides by zero")
    settings = {
        "base_image_seq_len": 1024,
        "max_image_seq_len": 4096,
        "base_shift": 0.95,
        "max_shift": 2.05,
    }
    theirs = FlowMatchEulerDiscreteScheduler(
        use_dynamic_shifting=True, shift_terminal=terminal, **settings
    )
    mu = calculate_shift(tokens, 1024, 4096, 0.95, 2.05)
    theirs.set_timesteps(sigmas=np.linspace(1.0, 1 / steps, steps), mu=mu)
    spec = FlowMatchSpec(dynamic=DynamicShift(1024, 4096, 0.95, 2.05), terminal=terminal)

    ours, given = spec.schedule(steps, tokens), outputs(steps)
    np.testing.assert_allclose(ours.timesteps, theirs.timesteps.numpy(), rtol=1e-5)
    np.testing.assert_allclose(run_ours(ours, given), run_theirs(theirs, given), atol=1e-4)


@pytest.mark.parametrize("steps", [1, 4, 30])
@pytest.mark.parametrize("shift", [1.0, 5.0])
def test_flow_match_with_a_fixed_shift(steps, shift):
    theirs = FlowMatchEulerDiscreteScheduler(shift=shift)
    theirs.set_timesteps(sigmas=np.linspace(1.0, 1 / steps, steps))

    ours, given = FlowMatchSpec(shift=shift).schedule(steps, tokens=1), outputs(steps)
    np.testing.assert_allclose(ours.timesteps, theirs.timesteps.numpy(), rtol=1e-5)
    np.testing.assert_allclose(run_ours(ours, given), run_theirs(theirs, given), atol=1e-4)


@pytest.mark.parametrize("steps", [1, 7, 50])
@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"beta_schedule": "scaled_linear", "beta_start": 0.00085, "beta_end": 0.012},
        {"timestep_spacing": "trailing", "set_alpha_to_one": False},
        {"timestep_spacing": "linspace", "prediction_type": "v_prediction"},
        {"steps_offset": 1, "prediction_type": "sample"},
    ],
    ids=lambda settings: "-".join(settings) or "defaults",
)
def test_ddim(steps, settings):
    theirs = DDIMScheduler(clip_sample=False, **settings)
    theirs.set_timesteps(steps)

    ours, given = DDIMSpec(**settings).schedule(steps, tokens=1), outputs(steps)
    np.testing.assert_array_equal(ours.timesteps, theirs.timesteps.numpy())
    np.testing.assert_allclose(
        run_ours(ours, given), run_theirs(theirs, given), rtol=2e-3, atol=2e-3
    )
