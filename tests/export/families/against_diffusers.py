"""Clips of our stages beside those of diffusers' own pipelines, from the same noise."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from reelserve.export.families import CheckpointFamily
from reelserve.export.parity import ENGINE_STAGES, ParityCase, ParityCheck, torch_runner
from reelserve.export.parity_limits import MAX_PIPELINE_LATENTS_ERROR, MIN_PIPELINE_PSNR_DB
from reelserve.pipeline.quality import psnr


@dataclass(frozen=True)
class Clip:
    """A finished clip.

    Args:
        latents: `[C, F, H, W]`; None where they were not seen.
        frames: `[F, H, W, 3]`, whole levels of 255.
    """

    latents: np.ndarray | None
    frames: np.ndarray


def our_clip(family: CheckpointFamily, case: ParityCase) -> Clip:
    """The clip that a family's stages draw in torch."""
    runners = {name: torch_runner(family.build(name)) for name in ENGINE_STAGES}
    with one_thread():
        runs = ParityCheck(family.spec(), family.tokenizer(), case).generate(runners)
    return Clip(runs["denoiser"].result[0], runs["upsampler"].output[0])


def their_clip(
    pipeline: Any, unpacked: Callable[[torch.Tensor], torch.Tensor], request: Mapping[str, Any]
) -> Clip:
    """The clip that diffusers' pipeline draws.

    Args:
        pipeline: On the CPU, in fp32.
        unpacked: Makes `[C, F, H, W]` of its latents.
        request: Arguments of the pipeline.
    """
    pipeline.set_progress_bar_config(disable=True)
    last: list[torch.Tensor] = []

    def keep(_pipeline: Any, _step: int, _timestep: Any, given: dict[str, Any]) -> dict[str, Any]:
        last[:] = [given["latents"]]
        return {}

    with one_thread():
        frames = pipeline(**request, callback_on_step_end=keep, output_type="np").frames[0]
    return Clip(unpacked(last[0]).numpy(), np.round(frames * 255))


@contextmanager
def one_thread() -> Iterator[None]:
    """Computes on one core: operators this small wait for each other's threads, ten times longer
    where other processes are busy."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def differences(ours: Clip, theirs: Clip) -> dict[str, float]:
    """PSNR of the frames in dB, and the relative error of the latents where both are there."""
    found = {"frames_db": psnr(ours.frames, theirs.frames)}
    if ours.latents is not None and theirs.latents is not None:
        error = np.linalg.norm(ours.latents - theirs.latents)
        found["latents_error"] = float(error / np.linalg.norm(theirs.latents))
    return found


def require_same(ours: Clip, theirs: Clip) -> None:
    """Fails unless two clips are the same to the last digits."""
    found = differences(ours, theirs)
    assert ours.frames.shape == theirs.frames.shape
    assert found["frames_db"] >= MIN_PIPELINE_PSNR_DB, found
    assert found.get("latents_error", 0.0) <= MAX_PIPELINE_LATENTS_ERROR, found


def require_seen(ours: Clip, theirs: Clip) -> None:
    """Fails unless both bounds tell two clips apart."""
    found = differences(ours, theirs)
    assert found["frames_db"] < MIN_PIPELINE_PSNR_DB, found
    assert found["latents_error"] > MAX_PIPELINE_LATENTS_ERROR, found
