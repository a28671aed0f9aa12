import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from reelserve.pipeline.scheduler import euler_step, flow_match_sigmas


@given(steps=st.integers(1, 100), shift=st.floats(0.1, 20))
def test_flow_match_sigmas_fall_from_one_to_zero(steps, shift):
    sigmas = flow_match_sigmas(steps, shift)

    assert sigmas.shape == (steps + 1,)
    assert sigmas.dtype == np.float32
    assert sigmas[0] == 1 and sigmas[-1] == 0
    assert np.all(np.diff(sigmas) < 0)


def test_flow_match_sigmas_are_even_when_shift_is_one():
    np.testing.assert_allclose(flow_match_sigmas(4), [1, 0.75, 0.5, 0.25, 0])


def test_flow_match_sigmas_follow_the_shift():
    # shift·σ / (1 + (shift − 1)·σ) at σ = 0.5.
    assert flow_match_sigmas(2, shift=3.0)[1] == np.float32(0.75)


@pytest.mark.parametrize(("steps", "shift"), [(0, 1.0), (-1, 1.0), (4, 0.0), (4, float("nan"))])
def test_flow_match_sigmas_refuse_when_out_of_range(steps, shift):
    with pytest.raises(ValueError, match=r"num_inference_steps is|shift is"):
        flow_match_sigmas(steps, shift)


def test_euler_steps_reach_the_data_when_the_velocity_is_exact():
    rng = np.random.default_rng(0)
    data, noise = rng.standard_normal((2, 16, 5, 3, 2), dtype=np.float32)
    sigmas = flow_match_sigmas(7, shift=2.5)
    latents = noise
    for sigma, sigma_next in itertools.pairwise(sigmas):
        latents = euler_step(latents, noise - data, sigma, sigma_next)

    assert latents.dtype == np.float32
    np.testing.assert_allclose(latents, data, atol=1e-5)
