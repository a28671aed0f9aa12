"""LTX-Video: our exported stages against diffusers' own pipeline, from the same noise."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

pytest.importorskip("diffusers", reason="diffusers is not installed: pip install '.[families]'")

from diffusers import LTXPipeline

from reelserve.export.families import family_of
from reelserve.export.families.layout import Checkpoint
from reelserve.export.families.ltx import LTXFamily
from reelserve.export.parity import MIN_FRAMES_PSNR_DB, ParityCase, ParityCheck, torch_runner
from reelserve.export.exporter import ENGINE_STAGES
from reelserve.pipeline.noise import seeded_noise
from reelserve.pipeline.quality import psnr
from tests.export.families.tiny_checkpoints import LTX_PROFILE, write_tiny_ltx


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory) -> Path:
    return write_tiny_ltx(tmp_path_factory.mktemp("ltx") / "tiny")


def diffusers_frames(folder: Path, case: ParityCase, prompt: str, guidance: float) -> np.ndarray:
    """Frames of diffusers' pipeline, from the noise that a request with the case's seed has."""
    pipeline = LTXPipeline.from_pretrained(folder, torch_dtype=torch.float32)
    height, width = (LTX_PROFILE[name]["low"] for name in ("height", "width"))
    shape = (8, (case.num_frames - 1) // 8 + 1, height // 32, width // 32)
    noise = torch.from_numpy(seeded_noise(case.seed, shape))[None]
    frames = pipeline(
        prompt=prompt,
        negative_prompt="",
        height=height,
        width=width,
        num_frames=case.num_frames,
        frame_rate=25,
        num_inference_steps=case.num_inference_steps,
        guidance_scale=guidance,
        latents=noise.flatten(2).transpose(1, 2),
        max_sequence_length=LTX_PROFILE["max_prompt_tokens"],
        output_type="np",
    ).frames[0]
    return np.round(frames * 255)


@pytest.mark.parametrize(("num_frames", "steps"), [(9, 2), (17, 5), (33, 3)])
def test_stages_in_torch_give_the_frames_of_diffusers(checkpoint, num_frames, steps):
    family = family_of(Checkpoint.open(checkpoint), LTX_PROFILE)
    assert isinstance(family, LTXFamily)
    case = ParityCase(num_frames=num_frames, num_inference_steps=steps)
    runners = {name: torch_runner(family.build(name)) for name in ENGINE_STAGES}
    traces = ParityCheck(family.spec("torch"), family.tokenizer(), case).generate(runners)

    ours = traces["upsampler"].output[0]
    theirs = diffusers_frames(checkpoint, case, "a red circle moves across a plain background", 3.0)
    assert ours.shape == (num_frames, 64, 64, 3)
    assert psnr(ours, theirs) >= MIN_FRAMES_PSNR_DB
