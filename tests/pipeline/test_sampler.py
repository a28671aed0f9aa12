import numpy as np
import pytest

from reelserve.pipeline.checkpoint import LatentSpec
from reelserve.pipeline.noise import seeded_noise
from reelserve.pipeline.sampler import Sampler, SamplingSettings, latent_shape
from reelserve.pipeline.scheduler import FlowMatchSpec

SPEC = LatentSpec(
    channels=4, temporal_compression=4, spatial_compression=32, window_frames=8, window_overlap=4
)


def settings(**changes) -> SamplingSettings:
    values = {
        "seed": 3,
        "num_inference_steps": 5,
        "guidance_scale": 2.0,
        "num_frames": 32,
        "height": 96,
        "width": 64,
    }
    return SamplingSettings(**{**values, **changes})


def test_latent_shape_divides_by_the_compression():
    assert latent_shape(SPEC, settings()) == (4, 8, 3, 2)


def test_sampler_starts_from_the_seeded_noise():
    np.testing.assert_array_equal(
        Sampler(SPEC, FlowMatchSpec(), settings()).latents, seeded_noise(3, (4, 8, 3, 2))
    )


def test_sampler_takes_as_many_steps_as_asked_for():
    sampler = Sampler(SPEC, FlowMatchSpec(), settings(num_inference_steps=5))
    timesteps = []
    while not sampler.done:
        rows = sampler.rows()
        timesteps.append(rows.timestep)
        sampler.advance(np.zeros_like(rows.latents))

    np.testing.assert_allclose(timesteps, [1000, 800, 600, 400, 200], rtol=1e-6)


@pytest.mark.parametrize(
    ("guidance_scale", "num_frames", "text"),
    [(1.0, 32, [0]), (2.0, 32, [0, 1]), (1.0, 48, [0, 0]), (2.0, 48, [0, 0, 1, 1])],
    ids=["plain", "guided", "plain, two windows", "guided, two windows"],
)
def test_sampler_asks_for_a_row_a_window_and_prompt(guidance_scale, num_frames, text):
    sampler = Sampler(
        SPEC, FlowMatchSpec(), settings(guidance_scale=guidance_scale, num_frames=num_frames)
    )
    rows = sampler.rows()

    assert rows.text.tolist() == text
    assert rows.latents.shape == (len(text), 4, 8, 3, 2)


@pytest.mark.parametrize("num_frames", [16, 32, 48, 100])
def test_sampler_reaches_the_data_when_the_velocity_is_exact(num_frames):
    sampler = Sampler(
        SPEC, FlowMatchSpec(shift=1.5), settings(num_frames=num_frames, guidance_scale=3.0)
    )
    noise = sampler.latents
    data = np.random.default_rng(0).standard_normal(noise.shape, np.float32)
    exact = Sampler(
        SPEC, FlowMatchSpec(shift=1.5), settings(num_frames=num_frames, guidance_scale=3.0)
    )
    exact.latents = noise - data
    velocity = exact.rows().latents
    while not sampler.done:
        sampler.advance(velocity)

    np.testing.assert_allclose(sampler.latents, data, atol=1e-5)


def test_sampler_weighs_the_prompts_by_the_guidance_scale():
    sampler = Sampler(SPEC, FlowMatchSpec(), settings(num_inference_steps=1, guidance_scale=2.5))
    noise = sampler.latents
    rows = sampler.rows()
    velocities = np.stack([np.full_like(rows.latents[0], value) for value in (3.0, 1.0)])
    sampler.advance(velocities)

    # 1 + 2.5·(3 − 1) = 6, over the whole way from σ = 1 to 0.
    np.testing.assert_allclose(sampler.latents, noise - 6, atol=1e-5)
