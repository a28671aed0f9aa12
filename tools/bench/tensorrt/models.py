"""What is measured: the stages of three checkpoints, and one block of a large denoiser."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch

from reelserve.export.families import family_of
from reelserve.export.families.layout import Checkpoint
from reelserve.export.parity import ENGINE_STAGES
from reelserve.export.stages import DenoiserStage, DimRange, ExportStage, Target
from reelserve.models.denoiser import SIZE_3B, DenoiserConfig, SpaceTimeDenoiser
from reelserve.tools.bench.gpu.checkpoints import BUNDLED_CHECKPOINT, random_denoiser
from reelserve.tools.tiny_checkpoints import write_tiny_latte, write_tiny_ltx

BUNDLED = "bundled"
BLOCK = "block-3b"
TEXT_TOKENS = 128
_CLIP_LATENTS = (31, 16, 24)
"""Frames, rows and columns of the latents of 241 frames of 512×768."""


@dataclass(frozen=True)
class Model:
    """Stages that are measured together, each size with one value, so that shapes are fixed.

    Args:
        name: In the results.
        family: Family of its checkpoint; empty where there is none.
        weights: `trained` or `random`.
        profile: Changes of the request limits.
        stages: What is measured.
    """

    name: str
    family: str
    weights: str
    profile: Mapping[str, Any] = field(default_factory=dict)
    stages: tuple[str, ...] = ENGINE_STAGES


def _only(value: int) -> dict[str, int]:
    return {"low": value, "high": value, "default": value}


MODELS = (
    Model(BUNDLED, "bundled", "trained", {"num_frames": _only(80)}),
    Model(
        "ltx-tiny",
        "ltx",
        "random",
        {
            "max_prompt_tokens": 16,
            "num_inference_steps": {"default": 2},
            "num_frames": _only(9),
            "height": _only(64),
            "width": _only(96),
        },
    ),
    Model("latte-tiny", "latte", "random"),
    Model(BLOCK, "", "random", stages=("denoiser",)),
)
"""In the order in which they are measured."""


def checkpoint_of(model: Model, work: Path) -> Path:
    """Folder of a model's checkpoint, written where it is random and not there yet."""
    if model.name == BUNDLED:
        return BUNDLED_CHECKPOINT
    folder = work / "checkpoints" / model.name
    if not (folder / "model_index.json").is_file():
        {"ltx": write_tiny_ltx, "latte": write_tiny_latte}[model.family](folder)
    return folder


def load_stage(model: Model, stage: str, target: Target, work: Path) -> ExportStage:
    """One stage of a model.

    Args:
        model: Its model.
        stage: Its name.
        target: Precision and device.
        work: Folder for checkpoints.
    """
    if model.name == BLOCK:
        return one_block(SIZE_3B, target, _CLIP_LATENTS)
    family = family_of(Checkpoint.open(checkpoint_of(model, work)), model.profile)
    return family.build(stage, target)


def one_block(config: DenoiserConfig, target: Target, latents: tuple[int, int, int]) -> ExportStage:
    """A denoiser with one of its transformer blocks, at the width and tokens of the whole.

    Args:
        config: Size of the whole.
        target: Precision and device.
        latents: Frames, rows and columns.
    """
    denoiser: SpaceTimeDenoiser = random_denoiser(replace(config, num_blocks=1))
    module = DenoiserStage(target.place(denoiser))
    frames, height, width = latents
    generator = torch.Generator().manual_seed(0)
    inputs = (
        torch.randn(2, config.in_channels, frames, height, width, generator=generator),
        torch.full((2, 1), 500.0),
        torch.randn(2, TEXT_TOKENS, config.text_dim, generator=generator),
        torch.ones(2, TEXT_TOKENS, dtype=torch.int64),
    )
    fixed = DimRange(frames, frames, frames)
    placed = tuple(tensor.to(target.device) for tensor in inputs)
    return ExportStage("denoiser", module, placed, {"LATENTS": {2: "frames"}}, {"frames": fixed})
