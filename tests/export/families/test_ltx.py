"""LTX-Video: our exported stages against diffusers' own pipeline, from the same noise."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

pytest.importorskip("diffusers", reason="diffusers is not installed: pip install '.[families]'")

from diffusers import LTXPipeline

from reelserve.client import Client, InvalidArgumentError
from reelserve.export.engines.onnx import files as onnx_files
from reelserve.export.families import family_of
from reelserve.export.families.layout import Checkpoint
from reelserve.export.families.ltx import LTXFamily
from reelserve.export.parity import (
    ENGINE_STAGES,
    MIN_FRAMES_PSNR_DB,
    PROMPT,
    ParityCase,
    ParityCheck,
    torch_runner,
)
from reelserve.pipeline.noise import seeded_noise
from reelserve.pipeline.quality import psnr
from reelserve.server.launch.running_server import Server
from reelserve.server.launch.tritons import ServeOptions
from reelserve.tools.tiny_checkpoints import LTX_PROFILE, write_tiny_ltx
from tests.export.families import served
from tests.server.bare import bare_triton

pytestmark = pytest.mark.compile


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory) -> Path:
    return write_tiny_ltx(tmp_path_factory.mktemp("ltx") / "tiny")


def diffusers_frames(folder: Path, *, seed: int, **request: Any) -> np.ndarray:
    """Frames of diffusers' pipeline, from the noise that a request with the seed has."""
    pipeline = LTXPipeline.from_pretrained(folder, dtype=torch.float32)
    pipeline.set_progress_bar_config(disable=True)
    shape = (
        8,
        (request["num_frames"] - 1) // 8 + 1,
        request["height"] // 32,
        request["width"] // 32,
    )
    noise = torch.from_numpy(seeded_noise(seed, shape))[None]
    frames = pipeline(
        **request,
        frame_rate=25,
        latents=noise.flatten(2).transpose(1, 2),
        max_sequence_length=LTX_PROFILE["max_prompt_tokens"],
        output_type="np",
    ).frames[0]
    return np.round(frames * 255)


@pytest.mark.parametrize(
    ("num_frames", "steps", "heads", "scheduler"),
    [(9, 2, 2, {}), (17, 5, 2, {}), (33, 3, 3, {"shift_terminal": None})],
)
def test_stages_in_torch_give_the_frames_of_diffusers(
    tmp_path, num_frames, steps, heads, scheduler
):
    checkpoint = write_tiny_ltx(tmp_path / "tiny", heads=heads, **scheduler)
    family = family_of(Checkpoint.open(checkpoint), LTX_PROFILE)
    assert isinstance(family, LTXFamily)
    case = ParityCase(num_frames=num_frames, num_inference_steps=steps)
    runners = {name: torch_runner(family.build(name)) for name in ENGINE_STAGES}
    traces = ParityCheck(family.spec(), family.tokenizer(), case).generate(runners)

    ours = traces["upsampler"].output[0]
    theirs = diffusers_frames(
        checkpoint,
        prompt=PROMPT,
        seed=case.seed,
        num_frames=num_frames,
        num_inference_steps=steps,
        guidance_scale=3.0,
        height=64,
        width=64,
    )
    assert ours.shape == (num_frames, 64, 64, 3)
    assert psnr(ours, theirs) >= MIN_FRAMES_PSNR_DB


@pytest.mark.server
def test_served_frames_are_those_of_diffusers(tmp_path, monkeypatch):
    # As for weights of gigabytes: in a file beside each graph.
    monkeypatch.setattr(onnx_files, "EXTERNAL_DATA_BYTES", 1000)
    checkpoint = write_tiny_ltx(tmp_path / "tiny", heads=3)
    repository = tmp_path / "model_repository"
    psnr_db = served.export(checkpoint, LTX_PROFILE, repository)
    assert psnr_db >= MIN_FRAMES_PSNR_DB
    requests = (
        {"num_frames": 9, "num_inference_steps": 2, "guidance_scale": 3.0, "width": 96},
        {"num_frames": 25, "num_inference_steps": 5, "guidance_scale": 1.0, "width": 64},
        {"num_frames": 17, "num_inference_steps": 3, "guidance_scale": 7.5, "width": 128},
    )
    assert (repository / "denoiser" / "1" / "model.onnx.data").is_file()
    with bare_triton(repository) as stages:
        for number, request in enumerate(requests):
            request = {
                "prompt": "a red star moves",
                "negative_prompt": "a blue circle",
                "height": 64,
                "seed": number,
                **request,
            }
            ours = served.frames(stages.grpc_url, **request)
            theirs = diffusers_frames(checkpoint, **request)
            assert ours.shape == (request["num_frames"], 64, request["width"], 3)
            assert psnr(ours, theirs) >= MIN_FRAMES_PSNR_DB, request

    with Server(ServeOptions(repository, verify=True)) as server, Client(server.grpc_url) as client:
        video = client.generate("a red star", num_frames=17, seed=1)
        with pytest.raises(InvalidArgumentError, match="NUM_FRAMES is 16; it must be a "):
            client.generate("a red star", num_frames=16)
    assert (video.info.num_frames, video.info.fps, video.info.checkpoint) == (17, 25, "tiny")


def test_build_refuses_a_decoder_that_adds_noise(checkpoint, tmp_path):
    folder = Path(shutil.copytree(checkpoint, tmp_path / "noisy"))
    config = folder / "vae" / "config.json"
    changed = {
        **json.loads(config.read_text()),
        "decoder_inject_noise": [True, False, False, False],
    }
    config.write_text(json.dumps(changed))
    with pytest.raises(ValueError, match="decoder_inject_noise is set"):
        family_of(Checkpoint.open(folder), LTX_PROFILE).build("vae_decoder")
