import hashlib

import numpy as np
import pytest

from reelserve.pipeline.noise import seeded_noise

SHAPE = (16, 20, 8, 8)


def test_seeded_noise_is_the_same_everywhere():
    # A clip must look the same after an upgrade: this hash may only change on purpose.
    digest = hashlib.sha256(seeded_noise(42, SHAPE).tobytes()).hexdigest()

    assert digest[:16] == "d52b00311c8dd359"


def test_seeded_noise_is_standard_normal():
    noise = seeded_noise(1, SHAPE)

    assert noise.shape == SHAPE and noise.dtype == np.float32
    assert abs(noise.mean()) < 0.02
    assert abs(noise.std() - 1) < 0.02


@pytest.mark.parametrize("seed", [0, 1, 2**32, 2**63 - 1])
def test_seeded_noise_differs_when_the_seed_does(seed):
    assert not np.array_equal(seeded_noise(seed, SHAPE), seeded_noise(seed + 1, SHAPE))


def test_seeded_noise_refuses_when_the_seed_is_negative():
    with pytest.raises(ValueError, match="seed is -1; the limit is 0 or more"):
        seeded_noise(-1, SHAPE)
