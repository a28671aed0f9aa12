"""The flow-matching schedule and its Euler step, in NumPy.

Source: `FlowMatchEulerDiscreteScheduler` of diffusers with a static shift.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

NUM_TRAIN_TIMESTEPS = 1000


def flow_match_sigmas(num_inference_steps: int, shift: float = 1.0) -> NDArray[np.float32]:
    """Noise levels from pure noise to data.

    Args:
        num_inference_steps: ≥ 1.
        shift: Above 1 spends more steps at high noise; 1 spaces the levels evenly.

    Returns:
        `[num_inference_steps + 1]`, from 1 down to 0.

    Raises:
        ValueError: If there is no step or the shift is not positive.
    """
    if num_inference_steps < 1:
        raise ValueError(f"num_inference_steps {num_inference_steps}: must be at least 1")
    if not shift > 0:
        raise ValueError(f"shift {shift}: must be above 0")
    even = np.linspace(1.0, 0.0, num_inference_steps + 1)
    return (shift * even / (1 + (shift - 1) * even)).astype(np.float32)


def euler_step(
    sample: NDArray[np.float32],
    velocity: NDArray[np.float32],
    sigma: np.float32,
    next_sigma: np.float32,
) -> NDArray[np.float32]:
    """Moves `sample` along `velocity = noise − data` from one noise level to the next.

    Args:
        sample: Any shape.
        velocity: Like `sample`.
        sigma: Present noise level.
        next_sigma: Lower noise level.
    """
    return sample + (next_sigma - sigma) * velocity
