import numpy as np

from reelserve.pipeline.guidance import NO_GUIDANCE, guided_velocity

CONDITIONAL = np.array([3.0, -1.0], np.float32)
UNCONDITIONAL = np.array([1.0, 1.0], np.float32)


def test_guided_velocity_extrapolates_away_from_the_unconditional():
    velocity = guided_velocity(CONDITIONAL, UNCONDITIONAL, 2.5)

    np.testing.assert_array_equal(velocity, [6.0, -4.0])
    assert velocity.dtype == np.float32


def test_guided_velocity_is_the_conditional_when_guidance_is_off():
    velocity = guided_velocity(CONDITIONAL, UNCONDITIONAL, NO_GUIDANCE)

    np.testing.assert_array_equal(velocity, CONDITIONAL)
