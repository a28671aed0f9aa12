"""Classifier-free guidance."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

NO_GUIDANCE = 1.0
"""At this scale the unconditional velocity has no weight and need not be computed."""


def guided_velocity(
    conditional: NDArray[np.float32],
    unconditional: NDArray[np.float32],
    guidance_scale: float,
) -> NDArray[np.float32]:
    """Pushes the velocity away from the negative prompt's.

    Args:
        conditional: Velocity for the prompt.
        unconditional: Velocity for the negative prompt, shape of `conditional`.
        guidance_scale: Dimensionless, ≥ 1; 1 disables guidance.

    Source: Ho and Salimans, "Classifier-Free Diffusion Guidance", 2022, equation 6 with
    `guidance_scale` = w + 1.
    """
    return unconditional + np.float32(guidance_scale) * (conditional - unconditional)
