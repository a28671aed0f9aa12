"""DDIM without noise between steps, for denoisers that predict the noise.

Latents at timestep t are `√ᾱ·data + √(1 − ᾱ)·noise`.

Source: diffusers `DDIMScheduler` with η = 0; Song et al., "Denoising Diffusion Implicit Models",
arXiv 2010.02502, equation 12. Clipping and thresholding are for images, not latents, and left out.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

Prediction = Literal["epsilon", "v_prediction", "sample"]
BetaSchedule = Literal["linear", "scaled_linear"]
TimestepSpacing = Literal["leading", "trailing", "linspace"]


@dataclass(frozen=True)
class DDIMSpec:
    """Settings of the schedule, named as diffusers names them.

    Args:
        num_train_timesteps: Timesteps of the training.
        beta_start: First β.
        beta_end: Last β.
        beta_schedule: Whether β or its square root is spaced evenly.
        set_alpha_to_one: Whether the last step goes to ᾱ = 1 or to that of timestep 0.
        steps_offset: Added to the timesteps where they are spaced `leading`.
        prediction_type: What the denoiser gives.
        timestep_spacing: How the visited timesteps are spread, as in diffusers.
    """

    num_train_timesteps: int = 1000
    beta_start: float = 0.0001
    beta_end: float = 0.02
    beta_schedule: BetaSchedule = "linear"
    set_alpha_to_one: bool = True
    steps_offset: int = 0
    prediction_type: Prediction = "epsilon"
    timestep_spacing: TimestepSpacing = "leading"

    def schedule(self, num_inference_steps: int, tokens: int) -> DDIMSchedule:
        """The timesteps of one clip, whatever its size.

        Raises:
            ValueError: If there are fewer than 1 or more than `num_train_timesteps` steps, or
                `steps_offset` leads beyond the training.
        """
        return DDIMSchedule(self, num_inference_steps)

    def alphas_cumprod(self) -> NDArray[np.float32]:
        """ᾱ of every training timestep."""
        start, end = self.beta_start, self.beta_end
        if self.beta_schedule == "scaled_linear":
            betas = np.linspace(start**0.5, end**0.5, self.num_train_timesteps) ** 2
        else:
            betas = np.linspace(start, end, self.num_train_timesteps)
        products: NDArray[np.float32] = np.cumprod(1 - betas).astype(np.float32)
        return products


class DDIMSchedule:
    """The timesteps of one clip, and the way from one to the next.

    Args:
        spec: Settings.
        num_inference_steps: Number of steps.
    """

    def __init__(self, spec: DDIMSpec, num_inference_steps: int) -> None:
        if not 1 <= num_inference_steps <= spec.num_train_timesteps:
            raise ValueError(
                f"num_inference_steps is {num_inference_steps}; "
                f"the limits are 1 to {spec.num_train_timesteps}"
            )
        self._prediction = spec.prediction_type
        timesteps = spaced(spec, num_inference_steps)
        if timesteps[0] >= spec.num_train_timesteps:
            raise ValueError(
                f"num_inference_steps is {num_inference_steps}; with steps_offset "
                f"{spec.steps_offset} its first timestep is {timesteps[0]}, and the training has "
                f"{spec.num_train_timesteps}"
            )
        alphas = spec.alphas_cumprod()
        before = timesteps - spec.num_train_timesteps // num_inference_steps
        last = np.float32(1) if spec.set_alpha_to_one else alphas[0]
        self._alphas = alphas[timesteps]
        self._alphas_before = np.where(before >= 0, alphas[np.maximum(before, 0)], last)
        self.timesteps: NDArray[np.float32] = timesteps.astype(np.float32)

    def step(
        self, index: int, latents: NDArray[np.float32], output: NDArray[np.float32]
    ) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Takes step `index`.

        Args:
            index: Number of the step, from 0.
            latents: Any shape.
            output: Output of the denoiser, shape of `latents`.

        Returns:
            The latents after the step, and its estimate of the clean ones.
        """
        alpha, before = self._alphas[index], self._alphas_before[index]
        data, noise = _data_and_noise(self._prediction, latents, output, alpha)
        return np.sqrt(before) * data + np.sqrt(1 - before) * noise, data


def spaced(spec: DDIMSpec, num_inference_steps: int) -> NDArray[np.int64]:
    """The training timesteps that a run visits, falling."""
    train = spec.num_train_timesteps
    steps: NDArray[np.generic]
    if spec.timestep_spacing == "linspace":
        steps = np.linspace(0, train - 1, num_inference_steps).round()[::-1]
    elif spec.timestep_spacing == "trailing":
        steps = np.round(np.arange(train, 0, -train / num_inference_steps)) - 1
    else:
        ratio = train // num_inference_steps
        steps = (np.arange(num_inference_steps) * ratio)[::-1] + spec.steps_offset
    return np.asarray(steps, np.int64)


def _data_and_noise(
    prediction: Prediction,
    latents: NDArray[np.float32],
    output: NDArray[np.float32],
    alpha: np.float32,
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    signal, rest = np.sqrt(alpha), np.sqrt(1 - alpha)
    if prediction == "epsilon":
        return (latents - rest * output) / signal, output
    if prediction == "sample":
        return output, (latents - signal * output) / rest
    return signal * latents - rest * output, signal * output + rest * latents
