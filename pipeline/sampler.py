"""Takes one clip from noise to latents; the caller runs the denoiser.

sampler = Sampler(spec.latents, spec.scheduler, settings)
while not sampler.done:
    rows = sampler.rows()
    sampler.advance(denoiser(rows.latents, rows.timestep, embeds[rows.text]))
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from reelserve.pipeline.checkpoint import LatentSpec, SchedulerSpec
from reelserve.pipeline.guidance import NO_GUIDANCE, guided_velocity
from reelserve.pipeline.noise import seeded_noise
from reelserve.pipeline.windows import (
    blend_windows,
    split_windows,
    window_starts,
    window_weights,
)

PROMPT_ROW = 0
NEGATIVE_PROMPT_ROW = 1
"""Rows of PROMPT_EMBEDS and ATTENTION_MASK."""


@dataclass(frozen=True)
class SamplingSettings:
    """Settings of a request that concern sampling.

    Args:
        seed: ≥ 0.
        num_inference_steps: ≥ 1.
        guidance_scale: ≥ 1; 1 disables guidance.
        num_frames: Frames of the clip.
        height: Pixels of the MP4.
        width: Pixels of the MP4.
    """

    seed: int
    num_inference_steps: int
    guidance_scale: float
    num_frames: int
    height: int
    width: int


@dataclass(frozen=True)
class DenoiserRows:
    """Inputs of the denoiser for one step of one clip.

    Args:
        latents: `[n, C, f, H, W]`: its windows, a second time for the negative prompt.
        timestep: As the schedule gives it, the same for every row.
        text: `[n]`, the row of PROMPT_EMBEDS that each row is conditioned on.
    """

    latents: NDArray[np.float32]
    timestep: float
    text: NDArray[np.int64]


def latent_shape(spec: LatentSpec, settings: SamplingSettings) -> tuple[int, int, int, int]:
    """`(C, F, H, W)` of a request's latents."""
    return (
        spec.channels,
        spec.frames(settings.num_frames),
        settings.height // spec.spatial_compression,
        settings.width // spec.spatial_compression,
    )


class Sampler:
    """The latents of one clip and how far they are denoised.

    `latents` are the current ones; `denoised` is the last step's estimate of the clean ones, a
    first look at the clip. Both are `[C, F, H, W]`.

    Args:
        spec: Latent shape and window length of the checkpoint.
        scheduler: Schedule of the checkpoint.
        settings: The request's.
    """

    def __init__(
        self, spec: LatentSpec, scheduler: SchedulerSpec, settings: SamplingSettings
    ) -> None:
        shape = latent_shape(spec, settings)
        self.latents: NDArray[np.float32] = seeded_noise(settings.seed, shape)
        self._num_frames = shape[1]
        tokens = math.prod(shape[1:])
        self._schedule = scheduler.schedule(settings.num_inference_steps, tokens)
        self.denoised: NDArray[np.float32] = np.zeros_like(self.latents)
        self._guidance_scale = settings.guidance_scale
        self._step = 0
        self._window_frames = spec.window_frames
        self._starts = window_starts(self._num_frames, spec.window_frames, spec.window_overlap)
        self._weights = window_weights(
            self._num_frames, self._starts, spec.window_frames, spec.window_overlap
        )

    @property
    def step(self) -> int:
        """Steps taken."""
        return self._step

    @property
    def num_steps(self) -> int:
        """Steps of the whole run."""
        return len(self._schedule.timesteps)

    @property
    def done(self) -> bool:
        """Whether `latents` are clean."""
        return self._step == self.num_steps

    @property
    def guided(self) -> bool:
        """Whether the negative prompt's velocity is needed too."""
        return self._guidance_scale != NO_GUIDANCE

    def rows(self) -> DenoiserRows:
        """Inputs of the denoiser for the next step."""
        windows = split_windows(self.latents, self._starts, self._window_frames)
        prompts = [PROMPT_ROW, NEGATIVE_PROMPT_ROW] if self.guided else [PROMPT_ROW]
        return DenoiserRows(
            latents=np.concatenate([windows] * len(prompts)),
            timestep=float(self._schedule.timesteps[self._step]),
            text=np.repeat(np.array(prompts, np.int64), len(windows)),
        )

    def advance(self, velocities: NDArray[np.float32]) -> None:
        """Takes one step.

        Args:
            velocities: `[n, C, f, H, W]`, in the order of `rows()`.
        """
        windows = len(self._starts)
        velocity = velocities[:windows]
        if self.guided:
            velocity = guided_velocity(velocity, velocities[windows:], self._guidance_scale)
        blended = blend_windows(velocity, self._starts, self._weights, self._num_frames)
        self.latents, self.denoised = self._schedule.step(self._step, self.latents, blended)
        self._step += 1
