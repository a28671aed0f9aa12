"""The requests that are being denoised, and whose turn it is."""

from __future__ import annotations

import time
from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass, field
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
from reelserve.server.errors import StageError, UnavailableError

RANKS = IntRange(0, len(PRIORITIES) - 1, 0)
KEPT_FOR_BATCH = 1
"""Places that interactive requests leave to the others, so that those finish too."""


@dataclass
class Clip:
    """One request on its way from noise to latents.

    Args:
        sampler: Its latents.
        prompt_embeds: `[2, L, E]`.
        attention_mask: `[2, L]`.
        rank: Place in line, see `PRIORITIES`.
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
        """Outputs of the `video_diffusion` stage, batch dimension first."""
        return {"LATENTS": self.sampler.latents[None]}


def clip_from_inputs(inputs: Mapping[str, NDArray[Any]], spec: CheckpointSpec) -> Clip:
    """Starts a clip from the inputs of the `video_diffusion` stage.

    `prompt_processor` has checked them; whoever calls this stage by itself gets no further.

    Args:
        inputs: By name, batch dimension first, one row.
        spec: The served checkpoint.

    Raises:
        ValueError: If a request holds more than one row, or a field is out of range.
    """
    for name, array in inputs.items():
        if array.shape[0] != 1:
            raise ValueError(f"{name} holds {array.shape[0]} rows; the limit is 1")
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
    return Clip(
        sampler=Sampler(spec.latents, spec.scheduler, settings),
        prompt_embeds=inputs["PROMPT_EMBEDS"][0],
        attention_mask=spec.denoiser_mask(inputs["ATTENTION_MASK"][0]),
        rank=check_int("PRIORITY_RANK", inputs["PRIORITY_RANK"].item(), RANKS),
    )


@dataclass
class ClipTable:
    """Requests in flight by their id, oldest first.

    Args:
        max_active: Requests that are denoised together; later ones wait for a place.
        max_in_flight: Requests held in all; later ones are refused.
        max_idle_s: A request that Triton stopped scheduling is forgotten after this long.
        on_drop: Told the id of every request that leaves.
    """

    max_active: int
    max_in_flight: int
    max_idle_s: float
    on_drop: Callable[[Hashable], object] = lambda key: None
    _clips: dict[Hashable, Clip] = field(default_factory=dict)
    _seen_s: dict[Hashable, float] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self._clips)

    def admit(self, key: Hashable, make: Callable[[], Clip]) -> Clip:
        """Adds a request.

        Raises:
            UnavailableError: If the table is full.
        """
        self._forget_idle()
        if len(self._clips) >= self.max_in_flight:
            raise UnavailableError(
                f"{len(self._clips)} requests are in flight; the limit is {self.max_in_flight}: "
                "try again later"
            )
        clip = make()
        self._clips[key] = clip
        self._seen_s[key] = time.monotonic()
        return clip

    def find(self, key: Hashable) -> Clip:
        """The clip of a request that was scheduled again.

        Raises:
            StageError: If it is not in the table.
        """
        if key not in self._clips:
            raise StageError("video_diffusion was handed a request that it does not hold")
        self._seen_s[key] = time.monotonic()
        return self._clips[key]

    def drop(self, key: Hashable) -> None:
        """Forgets a request; unknown ones are ignored."""
        self._clips.pop(key, None)
        self._seen_s.pop(key, None)
        self.on_drop(key)

    def active(self) -> set[Hashable]:
        """Requests whose turn it is: the interactive ones and, in what is left, the others.

        The oldest come first. Where both wait and there is more than one place, one is kept for
        the others.
        """
        first = [key for key, clip in self._clips.items() if clip.rank == 0]
        others = [key for key, clip in self._clips.items() if clip.rank > 0]
        kept = min(len(others), KEPT_FOR_BATCH, self.max_active - 1)
        chosen = first[: self.max_active - kept]
        return {*chosen, *others[: self.max_active - len(chosen)]}

    def _forget_idle(self) -> None:
        oldest = time.monotonic() - self.max_idle_s
        for key in [key for key, seen in self._seen_s.items() if seen < oldest]:
            self.drop(key)
