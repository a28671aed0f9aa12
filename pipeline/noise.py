"""The seeded noise that a clip starts from."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def seeded_noise(seed: int, shape: tuple[int, ...]) -> NDArray[np.float32]:
    """Standard normal noise that depends on `seed` and `shape` alone.

    Philox is counter-based and the same on every machine, unlike a framework's generator.

    Args:
        seed: ≥ 0.
        shape: `(C, F, H, W)` of the latents.

    Raises:
        ValueError: If `seed` is negative.
    """
    if seed < 0:
        raise ValueError(f"seed is {seed}; the limit is 0 or more")
    generator = np.random.Generator(np.random.Philox(seed))
    return generator.standard_normal(shape, dtype=np.float32)
