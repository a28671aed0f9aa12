"""Flow matching (rectified flow): the noise levels of a run and its Euler step.

Latents at noise level σ are `(1 − σ)·data + σ·noise`, so the denoiser's velocity
`noise − data` is their derivative by σ, and sampling integrates it from σ = 1 to σ = 0.

Source: diffusers `FlowMatchEulerDiscreteScheduler`, given the sigmas that its pipelines pass
(evenly spaced from 1 to 1/steps); stochastic sampling and Karras, exponential and beta sigmas are
left out.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class DynamicShift:
    """A shift that grows with the tokens of a clip, `exp(mu)` with `mu` linear in them.

    Args:
        base_seq_len: Tokens at which `mu` is `base_shift`.
        max_seq_len: Tokens at which `mu` is `max_shift`; it goes on beyond.
        base_shift: `mu` at `base_seq_len`.
        max_shift: `mu` at `max_seq_len`.
    """

    base_seq_len: int
    max_seq_len: int
    base_shift: float
    max_shift: float

    def shift(self, tokens: int) -> float:
        """The shift for a clip of `tokens` tokens."""
        slope = (self.max_shift - self.base_shift) / (self.max_seq_len - self.base_seq_len)
        return math.exp(self.base_shift + slope * (tokens - self.base_seq_len))


@dataclass(frozen=True)
class FlowMatchSpec:
    """Settings of the schedule.

    Args:
        shift: > 0; 1 spaces the levels evenly, above 1 spends more steps on high noise.
        dynamic: Takes the place of `shift` where given.
        terminal: The last level above 0, in (0, 1); the levels are stretched to end there.
        num_train_timesteps: ≥ 1; the denoiser's TIMESTEP is the noise level times this.
    """

    shift: float = 1.0
    dynamic: DynamicShift | None = None
    terminal: float | None = None
    num_train_timesteps: int = 1000

    def schedule(self, num_inference_steps: int, tokens: int) -> FlowMatchSchedule:
        """The noise levels of one clip.

        Args:
            num_inference_steps: ≥ 1.
            tokens: Locations of its latents, `F·H·W`.

        Raises:
            ValueError: If an argument or a setting is out of range.
        """
        shift = self.shift if self.dynamic is None else self.dynamic.shift(tokens)
        sigmas = flow_match_sigmas(num_inference_steps, shift)
        if self.terminal:
            sigmas = stretched(sigmas, self.terminal)
        return FlowMatchSchedule(sigmas, self.num_train_timesteps)


class FlowMatchSchedule:
    """The noise levels of one clip, and the way from one to the next.

    Args:
        sigmas: `[steps + 1]`, from 1 down to 0.
        num_train_timesteps: See `FlowMatchSpec`.
    """

    def __init__(self, sigmas: NDArray[np.float32], num_train_timesteps: int) -> None:
        self._sigmas = sigmas
        self.timesteps: NDArray[np.float32] = sigmas[:-1] * np.float32(num_train_timesteps)

    def step(
        self, index: int, latents: NDArray[np.float32], velocity: NDArray[np.float32]
    ) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Takes step `index`.

        Returns:
            The latents after the step, and its estimate of the clean ones.
        """
        sigma, sigma_next = self._sigmas[index : index + 2]
        return (
            euler_step(latents, velocity, sigma, sigma_next),
            euler_step(latents, velocity, sigma, np.float32(0)),
        )


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


def stretched(sigmas: NDArray[np.float32], terminal: float) -> NDArray[np.float32]:
    """Stretches levels away from 1 so that the last one above 0 is `terminal`.

    A run of one step starts at 1 and cannot be stretched.

    Raises:
        ValueError: If `terminal` is not in (0, 1).
    """
    if not 0 < terminal < 1:
        raise ValueError(f"terminal is {terminal}; it must be above 0 and below 1")
    if len(sigmas) == 2:
        return sigmas
    away = 1 - sigmas[:-1]
    levels = 1 - away * ((1 - terminal) / away[-1])
    return np.append(levels, 0.0).astype(np.float32)


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
