"""Latte: our exported stages against diffusers' own pipeline, from the same noise."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

pytest.importorskip("diffusers", reason="diffusers is not installed: pip install '.[families]'")

from diffusers import LattePipeline

from reelserve.client import Client, InvalidArgumentError
from reelserve.export.families import family_of
from reelserve.export.families.latte import LatteFamily
from reelserve.export.families.layout import Checkpoint
from reelserve.export.parity import (
    ENGINE_STAGES,
    MIN_FRAMES_PSNR_DB,
    PROMPT,
    ParityCase,
    ParityCheck,
    torch_runner,
)
from reelserve.export.repository import ModelRepository
from reelserve.pipeline.noise import seeded_noise
from reelserve.pipeline.quality import psnr
from reelserve.server.launch.running_server import Server
from reelserve.server.launch.tritons import ServeOptions
from reelserve.tools.tiny_checkpoints import write_tiny_latte
from tests.export.engines.test_aot_inductor_served import session_of
from tests.export.families import served
from tests.server.bare import bare_triton

pytestmark = pytest.mark.compile

SIDE = 16


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory) -> Path:
    return write_tiny_latte(tmp_path_factory.mktemp("latte") / "tiny")


def diffusers_frames(folder: Path, *, seed: int, **request: Any) -> np.ndarray:
    """Frames of diffusers' pipeline, from the noise that a request with the seed has."""
    pipeline = LattePipeline.from_pretrained(folder, dtype=torch.float32)
    pipeline.set_progress_bar_config(disable=True)
    frames = pipeline.transformer.config.video_length
    noise = seeded_noise(seed, (4, frames, SIDE // 2, SIDE // 2))
    video = pipeline(
        **request,
        video_length=frames,
        height=SIDE,
        width=SIDE,
        latents=torch.from_numpy(noise)[None],
        clean_caption=False,
        output_type="np",
    ).frames[0]
    return np.round(video * 255)


@pytest.mark.parametrize(
    ("heads", "num_frames", "temporal_decoder", "steps"),
    [(2, 5, False, 2), (3, 16, True, 3), (1, 1, False, 4)],
)
def test_stages_in_torch_give_the_frames_of_diffusers(
    tmp_path, heads, num_frames, temporal_decoder, steps
):
    folder = write_tiny_latte(
        tmp_path / "tiny", heads=heads, num_frames=num_frames, temporal_decoder=temporal_decoder
    )
    family = family_of(Checkpoint.open(folder))
    assert isinstance(family, LatteFamily)
    case = ParityCase(num_inference_steps=steps)
    runners = {name: torch_runner(family.build(name)) for name in ENGINE_STAGES}
    traces = ParityCheck(family.spec(), family.tokenizer(), case).generate(runners)

    ours = traces["upsampler"].output[0]
    theirs = diffusers_frames(
        folder, prompt=PROMPT, seed=case.seed, num_inference_steps=steps, guidance_scale=7.5
    )
    assert ours.shape == (num_frames, SIDE, SIDE, 3)
    assert psnr(ours, theirs) >= MIN_FRAMES_PSNR_DB


def test_packages_give_the_frames_of_torch(tmp_path, checkpoint):
    repository = ModelRepository(tmp_path / "model_repository")
    assert served.export(checkpoint, {}, repository.folder, "pytorch") >= MIN_FRAMES_PSNR_DB
    # What a stage opens when it is served, with the config that it is served with.
    for stage in ENGINE_STAGES:
        assert session_of(repository, stage).spec.inputs


@pytest.mark.server
def test_served_frames_are_those_of_diffusers(tmp_path, checkpoint):
    repository = tmp_path / "model_repository"
    psnr_db = served.export(checkpoint, {}, repository)
    assert psnr_db >= MIN_FRAMES_PSNR_DB
    requests = (
        {"num_inference_steps": 2, "guidance_scale": 7.5, "negative_prompt": ""},
        {"num_inference_steps": 5, "guidance_scale": 1.0, "negative_prompt": ""},
        {"num_inference_steps": 3, "guidance_scale": 3.0, "negative_prompt": "a blue circle"},
    )
    with bare_triton(repository) as stages:
        for number, request in enumerate(requests):
            request = {"prompt": "A Red star moves", "seed": number, **request}
            ours = served.frames(stages.grpc_url, **request)
            assert psnr(ours, diffusers_frames(checkpoint, **request)) >= MIN_FRAMES_PSNR_DB

    with Server(ServeOptions(repository)) as server, Client(server.grpc_url) as client:
        video = client.generate("a red star", seed=1, num_inference_steps=2)
        with pytest.raises(InvalidArgumentError, match="NUM_FRAMES is 16; "):
            client.generate("a red star", num_frames=16)
    assert (video.info.num_frames, video.info.fps, video.info.checkpoint) == (5, 8, "tiny")


def test_family_refuses_another_length(checkpoint):
    family = family_of(Checkpoint.open(checkpoint), {"num_frames": 9})
    with pytest.raises(ValueError, match="num_frames of this checkpoint is 5 and no other"):
        family.spec()


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ({"clip_sample": True}, "clip_sample is True; it must be false"),
        ({"beta_schedule": "squaredcos_cap_v2"}, "beta_schedule is 'squaredcos_cap_v2'"),
    ],
)
def test_family_refuses_a_schedule_that_ours_does_not_do(checkpoint, tmp_path, setting, message):
    folder = Path(shutil.copytree(checkpoint, tmp_path / "other"))
    path = folder / "scheduler" / "scheduler_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **setting}))
    with pytest.raises(ValueError, match=message):
        family_of(Checkpoint.open(folder)).spec()
