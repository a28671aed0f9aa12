"""A request on its way from noise to latents."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from reelserve.pipeline.checkpoint import CheckpointSpec, IntRange
from reelserve.pipeline.request import (
    PRIORITIES,
    check_float,
    check_int,
    check_seed,
    integer_limits,
)
from reelserve.pipeline.sampler import Sampler, SamplingSettings

RANKS = IntRange(0, len(PRIORITIES) - 1, 0)


@dataclass
class DiffusionClip:
    """One request on its way from noise to latents.

    Args:
        sampler: Its latents.
        prompt_embeds: `[2, L, E]`.
        attention_mask: `[2, L]`.
        rank: Index of its priority in `PRIORITIES`; the lowest goes first.
    """

    sampler: Sampler
    prompt_embeds: NDArray[np.float32]
    attention_mask: NDArray[np.int64]
    rank: int

    def denoiser_inputs(self) -> dict[str, NDArray[Any]]:
        """Inputs of the `denoiser` stage for the next step, one row a window and prompt."""
        rows = self.sampler.rows()
        count = len(rows.latents)
        return {
            "LATENTS": rows.latents,
            "TIMESTEP": np.full((count, 1), rows.timestep, np.float32),
            "PROMPT_EMBEDS": self.prompt_embeds[rows.text],
            "ATTENTION_MASK": self.attention_mask[rows.text],
        }

    def outputs(self) -> dict[str, NDArray[Any]]:
        """Outputs of the `video_diffusion` stage, first dimension 1."""
        return {"LATENTS": self.sampler.latents[None]}


def clip_from_inputs(inputs: Mapping[str, NDArray[Any]], spec: CheckpointSpec) -> DiffusionClip:
    """Starts a clip from the inputs of the `video_diffusion` stage.

    `prompt_processor` has checked them; whoever calls this stage by itself gets no further.

    Args:
        inputs: By name, first dimension 1. They are copied: Triton takes their memory back.
        spec: The served checkpoint.

    Raises:
        ValueError: If a field is out of range.
    """
    limits = integer_limits(spec.limits)
    settings = SamplingSettings(
        seed=check_seed(inputs["SEED"].item()),
        guidance_scale=check_float(
            "GUIDANCE_SCALE", inputs["GUIDANCE_SCALE"].item(), spec.limits.guidance_scale
        ),
        **{
            name.lower(): check_int(name, inputs[name].item(), limits[name])
            for name in ("NUM_INFERENCE_STEPS", "NUM_FRAMES", "HEIGHT", "WIDTH")
        },
    )
    return DiffusionClip(
        sampler=Sampler(spec.latents, spec.scheduler, settings),
        prompt_embeds=inputs["PROMPT_EMBEDS"][0].copy(),
        attention_mask=spec.denoiser_mask(inputs["ATTENTION_MASK"][0].copy()),
        rank=check_int("PRIORITY_RANK", inputs["PRIORITY_RANK"].item(), RANKS),
    )
