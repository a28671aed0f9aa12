"""LTX-Video: our exported stages against diffusers' own pipeline, from the same noise."""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import Any

import pytest
import torch

pytest.importorskip("diffusers", reason="diffusers is not installed: pip install '.[families]'")

import diffusers
import transformers
from diffusers import LTXPipeline

from reelserve.client import Client, InvalidArgumentError
from reelserve.export.engines.onnx import files as onnx_files
from reelserve.export.families import CheckpointFamily, family_of, ltx
from reelserve.export.families.diffusers_components import T5_DEFAULTS
from reelserve.export.families.layout import Checkpoint
from reelserve.export.parity import PROMPT, ParityCase
from reelserve.export.parity_limits import MIN_PIPELINE_PSNR_DB
from reelserve.pipeline.noise import seeded_noise
from reelserve.server.launch.running_server import Server
from reelserve.server.launch.tritons import ServeOptions
from reelserve.tools.tiny_checkpoints import LTX_PROFILE, write_tiny_ltx
from tests.export.families import served
from tests.export.families.against_diffusers import (
    Clip,
    our_clip,
    require_same,
    require_seen,
    their_clip,
)
from tests.server.bare import bare_triton

pytestmark = pytest.mark.compile


BASE = {"seed": 7, "num_inference_steps": 3, "guidance_scale": 3.0, "prompt": PROMPT}
"""The request of which one input after the other is changed."""
CHANGES = {
    "fps": {"fps": 30},
    "seed": {"seed": 8},
    "steps": {"num_inference_steps": 4},
    "guidance": {"guidance_scale": 3.2},
    "no-guidance": {"guidance_scale": 1.0},
    "negative-prompt": {"negative_prompt": "a blue circle"},
    "prompt": {"prompt": "a blue circle"},
}


def ltx_family(folder: Path, fps: int = 25) -> CheckpointFamily:
    only = {"low": fps, "high": fps, "default": fps}
    return family_of(Checkpoint.open(folder), {**LTX_PROFILE, "fps": only})


def diffusers_clip(folder: Path, *, seed: int, fps: int = 25, **request: Any) -> Clip:
    """The clip of diffusers' pipeline, from the noise that a request with the seed has."""
    pipeline = LTXPipeline.from_pretrained(folder, dtype=torch.float32)
    request = {"num_frames": 9, "height": 64, "width": 64, **request}
    shape = (
        8,
        (request["num_frames"] - 1) // 8 + 1,
        request["height"] // 32,
        request["width"] // 32,
    )
    noise = torch.from_numpy(seeded_noise(seed, shape))[None]
    request["latents"] = noise.flatten(2).transpose(1, 2)
    request["max_sequence_length"] = LTX_PROFILE["max_prompt_tokens"]
    return their_clip(
        pipeline,
        lambda latents: latents[0].transpose(0, 1).unflatten(1, shape[1:]),
        {**request, "frame_rate": fps},
    )


def clip_of(folder: Path, *, fps: int = 25, **request: Any) -> Clip:
    return our_clip(ltx_family(folder, fps), ParityCase(num_frames=9, **request))


@pytest.mark.parametrize(("num_frames", "steps", "heads"), [(9, 2, 2), (17, 5, 2), (33, 3, 3)])
def test_stages_in_torch_give_the_clip_of_diffusers(tmp_path, num_frames, steps, heads):
    folder = write_tiny_ltx(tmp_path / "tiny", heads=heads)
    case = ParityCase(num_frames=num_frames, num_inference_steps=steps)
    ours = our_clip(ltx_family(folder), case)
    assert ours.frames.shape == (num_frames, 64, 64, 3)
    theirs = diffusers_clip(
        folder,
        prompt=PROMPT,
        seed=case.seed,
        num_frames=num_frames,
        num_inference_steps=steps,
        guidance_scale=3.0,
    )
    require_same(ours, theirs)


@pytest.fixture(scope="module")
def base(tiny_ltx) -> Clip:
    return clip_of(tiny_ltx, **BASE)


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_every_input_changes_the_clip_as_in_diffusers(tiny_ltx, base, change):
    request = {**BASE, **change}
    theirs = diffusers_clip(tiny_ltx, **request)
    require_same(clip_of(tiny_ltx, **request), theirs)
    # A stage that ignored the input would not pass.
    require_seen(base, theirs)


@pytest.mark.parametrize("settings", [{"num_train_timesteps": 500}, {"shift_terminal": None}])
def test_settings_of_the_scheduler_change_the_clip_as_in_diffusers(own_ltx, base, change, settings):
    change(own_ltx / "scheduler" / "scheduler_config.json", **settings)
    theirs = diffusers_clip(own_ltx, **BASE)
    require_same(clip_of(own_ltx, **BASE), theirs)
    require_seen(base, theirs)


@pytest.mark.server
def test_served_frames_are_those_of_diffusers(tmp_path, monkeypatch):
    # As for weights of gigabytes: in a file beside each graph.
    monkeypatch.setattr(onnx_files, "EXTERNAL_DATA_BYTES", 1000)
    checkpoint = write_tiny_ltx(tmp_path / "tiny", heads=3)
    repository = tmp_path / "model_repository"
    psnr_db = served.export(checkpoint, LTX_PROFILE, repository)
    assert psnr_db >= MIN_PIPELINE_PSNR_DB
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
            ours = served.clip(stages.grpc_url, **request)
            assert ours.frames.shape == (request["num_frames"], 64, request["width"], 3)
            require_same(ours, diffusers_clip(checkpoint, **request))

    with Server(ServeOptions(repository, verify=True)) as server, Client(server.grpc_url) as client:
        video = client.generate("a red star", num_frames=17, seed=1)
        with pytest.raises(InvalidArgumentError, match="NUM_FRAMES is 16; it must be a "):
            client.generate("a red star", num_frames=16)
    assert (video.info.num_frames, video.info.fps, video.info.checkpoint) == (17, 25, "tiny")


def test_check_refuses_a_decoder_that_adds_noise(own_ltx, change):
    path = own_ltx / "vae" / "config.json"
    change(path, decoder_inject_noise=[True, False, False, False])
    with pytest.raises(ValueError, match=f"{path}: decoder_inject_noise is set"):
        ltx_family(own_ltx).check("vae_decoder")


@pytest.mark.parametrize(
    ("class_name", "found"),
    [
        ("LTXVideoTransformer3DModel", ltx.TRANSFORMER_DEFAULTS),
        ("AutoencoderKLLTXVideo", ltx.DECODER_DEFAULTS),
    ],
)
def test_defaults_are_those_of_diffusers(class_name, found):
    parameters = inspect.signature(getattr(diffusers, class_name).__init__).parameters
    assert found == {name: parameters[name].default for name in found}


def test_defaults_of_the_text_encoder_are_those_of_transformers():
    config = transformers.T5Config()
    assert {name: getattr(config, name) for name in T5_DEFAULTS} == T5_DEFAULTS
