"""Flow matching (rectified flow): the noise levels of a run and its Euler step.

Latents at noise level σ are `(1 − σ)·data + σ·noise`, so the denoiser's velocity
`noise − data` is their derivative by σ, and sampling integrates it from σ = 1 to σ = 0.

Source: diffusers `FlowMatchEulerDiscreteScheduler`, given the sigmas that its pipelines pass
(evenly spaced from 1 to 1/steps); the stochastic and dynamic-shift options are left out.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

NUM_TRAIN_TIMESTEPS = 1000
"""The denoiser's TIMESTEP is the noise level times this."""


def flow_match_sigmas(num_inference_steps: int, shift: float = 1.0) -> NDArray[np.float32]:
    """Noise levels of a run, from 1 down to 0.

    Args:
        num_inference_steps: ≥ 1.
        shift: > 0; 1 spaces the levels evenly, above 1 spends more steps on high noise.

    Returns:
        `[num_inference_steps + 1]`, strictly decreasing.

    Raises:
        ValueError: If an argument is out of range.
    """
    if num_inference_steps < 1:
        raise ValueError(f"num_inference_steps is {num_inference_steps}; the limit is 1 or more")
    if not shift > 0:
        raise ValueError(f"shift is {shift}; it must be above 0")
    sigmas = np.linspace(1.0, 0.0, num_inference_steps + 1)
    return (shift * sigmas / (1 + (shift - 1) * sigmas)).astype(np.float32)


def euler_step(
    latents: NDArray[np.float32],
    velocity: NDArray[np.float32],
    sigma: np.float32,
    sigma_next: np.float32,
) -> NDArray[np.float32]:
    """Moves latents from noise level `sigma` to `sigma_next` along `velocity`.

    Args:
        latents: Any shape.
        velocity: `noise − data`, shape of `latents`.
        sigma: Noise level of `latents`.
        sigma_next: Noise level of the result.
    """
    return latents + (sigma_next - sigma) * velocity
