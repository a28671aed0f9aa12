"""Latte: our exported stages against diffusers' own pipeline, from the same noise."""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

pytest.importorskip("diffusers", reason="diffusers is not installed: pip install '.[families]'")

import diffusers
from diffusers import LattePipeline

from reelserve.client import Client, InvalidArgumentError
from reelserve.export.families import family_of, latte
from reelserve.export.families.layout import Checkpoint
from reelserve.export.families.ranges import check_limits
from reelserve.export.parity import ENGINE_STAGES, PROMPT, ParityCase
from reelserve.export.parity_limits import MIN_PIPELINE_PSNR_DB
from reelserve.export.repository import ModelRepository
from reelserve.pipeline.noise import seeded_noise
from reelserve.server.launch.running_server import Server
from reelserve.server.launch.tritons import ServeOptions
from reelserve.tools.tiny_checkpoints import write_tiny_latte
from tests.export.engines.test_aot_inductor_served import session_of
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

SIDE = 16


BASE = {"seed": 7, "num_inference_steps": 3, "guidance_scale": 7.5, "prompt": PROMPT}
"""The request of which one input after the other is changed."""
CHANGES = {
    "seed": {"seed": 8},
    "steps": {"num_inference_steps": 4},
    "guidance": {"guidance_scale": 7.0},
    "no-guidance": {"guidance_scale": 1.0},
    "negative-prompt": {"negative_prompt": "a blue circle"},
    "prompt": {"prompt": "a blue circle"},
}


def diffusers_clip(folder: Path, *, seed: int, **request: Any) -> Clip:
    """The clip of diffusers' pipeline, from the noise that a request with the seed has."""
    pipeline = LattePipeline.from_pretrained(folder, dtype=torch.float32)
    frames = pipeline.transformer.config.video_length
    noise = seeded_noise(seed, (4, frames, SIDE // 2, SIDE // 2))
    fixed = {
        "video_length": frames,
        "height": SIDE,
        "width": SIDE,
        "latents": torch.from_numpy(noise)[None],
        "clean_caption": False,
    }
    return their_clip(pipeline, lambda latents: latents[0], {**request, **fixed})


def clip_of(folder: Path, **request: Any) -> Clip:
    return our_clip(family_of(Checkpoint.open(folder)), ParityCase(**request))


@pytest.mark.parametrize(
    ("heads", "width", "num_frames", "temporal_decoder", "steps"),
    [
        (2, 40, 5, False, 2),
        (3, 40, 16, True, 3),
        (1, 40, 1, False, 4),
        # Widths that the fused op has not.
        (2, 24, 5, False, 2),
        (1, 48, 5, False, 2),
    ],
)
def test_stages_in_torch_give_the_clip_of_diffusers(
    tmp_path, heads, width, num_frames, temporal_decoder, steps
):
    folder = write_tiny_latte(
        tmp_path / "tiny",
        heads=heads,
        head_width=width,
        num_frames=num_frames,
        temporal_decoder=temporal_decoder,
    )
    request = {**BASE, "num_inference_steps": steps}
    ours = clip_of(folder, **request)
    assert ours.frames.shape == (num_frames, SIDE, SIDE, 3)
    require_same(ours, diffusers_clip(folder, **request))


@pytest.fixture(scope="module", params=[False, True], ids=["images", "temporal"])
def checkpoint(request, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("latte") / "tiny"
    return write_tiny_latte(folder, temporal_decoder=request.param)


@pytest.fixture(scope="module")
def base(checkpoint) -> Clip:
    return clip_of(checkpoint, **BASE)


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_every_input_changes_the_clip_as_in_diffusers(checkpoint, base, change):
    request = {**BASE, **change}
    theirs = diffusers_clip(checkpoint, **request)
    require_same(clip_of(checkpoint, **request), theirs)
    # A stage that ignored the input would not pass.
    require_seen(base, theirs)


@pytest.mark.parametrize(
    "settings",
    [
        {"num_train_timesteps": 500},
        {"timestep_spacing": "trailing"},
        {"prediction_type": "v_prediction"},
        {"beta_schedule": "scaled_linear"},
        {"steps_offset": 0},
    ],
    ids=lambda settings: next(iter(settings)),
)
def test_settings_of_the_scheduler_change_the_clip_as_in_diffusers(
    own_latte, tiny_latte, change, settings
):
    change(own_latte / "scheduler" / "scheduler_config.json", **settings)
    theirs = diffusers_clip(own_latte, **BASE)
    require_same(clip_of(own_latte, **BASE), theirs)
    require_seen(clip_of(tiny_latte, **BASE), theirs)


def test_packages_give_the_frames_of_torch(tmp_path, tiny_latte):
    repository = ModelRepository(tmp_path / "model_repository")
    assert served.export(tiny_latte, {}, repository.folder, "pytorch") >= MIN_PIPELINE_PSNR_DB
    # What a stage opens when it is served, with the config that it is served with.
    for stage in ENGINE_STAGES:
        assert session_of(repository, stage).spec.inputs


@pytest.mark.server
def test_served_frames_are_those_of_diffusers(tmp_path, tiny_latte):
    repository = tmp_path / "model_repository"
    psnr_db = served.export(tiny_latte, {}, repository)
    assert psnr_db >= MIN_PIPELINE_PSNR_DB
    requests = (
        {"num_inference_steps": 2, "guidance_scale": 7.5, "negative_prompt": ""},
        {"num_inference_steps": 5, "guidance_scale": 1.0, "negative_prompt": ""},
        {"num_inference_steps": 3, "guidance_scale": 3.0, "negative_prompt": "a blue circle"},
    )
    with bare_triton(repository) as stages:
        for number, request in enumerate(requests):
            request = {"prompt": "A Red star moves", "seed": number, **request}
            ours = served.clip(stages.grpc_url, **request)
            require_same(ours, diffusers_clip(tiny_latte, **request))

    with Server(ServeOptions(repository)) as server, Client(server.grpc_url) as client:
        video = client.generate("a red star", seed=1, num_inference_steps=2)
        with pytest.raises(InvalidArgumentError, match="NUM_FRAMES is 16; "):
            client.generate("a red star", num_frames=16)
    assert (video.info.num_frames, video.info.fps, video.info.checkpoint) == (5, 8, "tiny")


def test_family_refuses_another_length(tiny_latte):
    nine = {"low": 9, "high": 9, "default": 9}
    family = family_of(Checkpoint.open(tiny_latte), {"num_frames": nine})
    with pytest.raises(ValueError, match="num_frames of this checkpoint is 5 and no other"):
        family.spec()


@pytest.mark.parametrize(
    ("component", "setting", "message"),
    [
        ("scheduler/scheduler_config", {"clip_sample": True}, "clip_sample is True; it must be F"),
        ("transformer/config", {"norm_type": "ada_norm"}, "norm_type is 'ada_norm'; it must be"),
        ("transformer/config", {"patch_size": None}, "patch_size is None; it must be a whole num"),
        ("transformer/config", {"sample_size": 10_000}, "sample_size is 10000; .* from 1 to 128"),
        ("transformer/config", {"video_length": 5000}, "video_length is 5000; .* from 1 to 128"),
        ("transformer/config", {"num_layers": 10**6}, "num_layers is 1000000; the limit is 256"),
        ("transformer/config", {"in_channels": 8}, "in_channels is 8; it must be 4"),
        (
            "transformer/config",
            {"sample_size": 128, "num_attention_heads": 128, "attention_head_dim": 128},
            "sample_size is 128; it must be smaller: its positions have 16384 values each",
        ),
        ("vae/config", {"scaling_factor": None}, "scaling_factor is None; it must be a number ab"),
        ("vae/config", {"block_out_channels": [8] * 9}, "block_out_channels has 9 entries; the l"),
    ],
)
def test_spec_names_setting_and_limit(own_latte, change, component, setting, message):
    path = own_latte / f"{component}.json"
    change(path, **setting)
    with pytest.raises(ValueError, match=f"{path}: {message}"):
        family_of(Checkpoint.open(own_latte)).spec()


@pytest.mark.parametrize("stage", ["text_encoder", "denoiser", "vae_decoder"])
def test_check_refuses_weights_that_do_not_fit(own_latte, stage):
    family = family_of(Checkpoint.open(own_latte))
    family.check(stage)
    _, path, *_ = family.source(stage).files
    weights = load_file(path)
    key = min(weights)
    save_file({f"more.{key}": weights.pop(key), **weights}, path, metadata={"format": "pt"})
    with pytest.raises(ValueError, match=f"{path}: .*missing: .*{key}.*1 unexpected: more.{key}$"):
        family.check(stage)


def test_check_refuses_another_autoencoder(own_latte, change):
    change(own_latte / "model_index.json", vae=["diffusers", "AutoencoderKLWan"])
    with pytest.raises(ValueError, match=r"is diffusers\.AutoencoderKLWan; .* needs diffusers\.Au"):
        family_of(Checkpoint.open(own_latte)).check("vae_decoder")


def test_steps_that_lead_beyond_the_training_are_refused(own_latte):
    steps = {"num_inference_steps": {"high": 1000}}
    spec = family_of(Checkpoint.open(own_latte), steps).spec()
    with pytest.raises(ValueError, match="num_inference_steps is 1000; with steps_offset 1"):
        check_limits(spec)


@pytest.mark.parametrize(
    ("class_name", "found"),
    [
        ("LatteTransformer3DModel", latte.TRANSFORMER_DEFAULTS),
        *((name, latte.VAE_DEFAULTS) for name in latte.VAE_CLASSES),
    ],
)
def test_defaults_are_those_of_diffusers(class_name, found):
    parameters = inspect.signature(getattr(diffusers, class_name).__init__).parameters
    assert found == {name: parameters[name].default for name in found}
