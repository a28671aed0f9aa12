import json

import numpy as np
import pytest

from reelserve.pipeline.contract import ENSEMBLE_STAGES
from reelserve.server.errors import StageError
from reelserve.server.stages.clip_output import finish_clip, installed_versions
from tests.server.grpc_requests import generate
from tests.server.tiny_repository import SPEC


def inputs(**changes):
    values = {
        "FRAMES": np.zeros((16, 64, 64, 3), np.uint8),
        "SEED": np.array([5]),
        "NUM_INFERENCE_STEPS": np.array([4], np.int32),
        "GUIDANCE_SCALE": np.array([2.3], np.float32),
        "FPS": np.array([8], np.int32),
        "HEIGHT": np.array([64], np.int32),
        "WIDTH": np.array([64], np.int32),
    }
    return {name: value[None] for name, value in {**values, **changes}.items()}


def test_finish_clip_describes_the_clip():
    outputs = finish_clip(inputs(), SPEC, {"av": "1"})
    info = json.loads(outputs["INFO"].item())

    assert outputs["VIDEO"].item()[4:8] == b"ftyp"
    assert info == {
        "seed": 5,
        "num_inference_steps": 4,
        "guidance_scale": 2.3,
        "num_frames": 16,
        "fps": 8,
        "height": 64,
        "width": 64,
        "checkpoint": "tiny",
        "engine": "onnxruntime",
        "versions": {"av": "1"},
        # Filled in by the front end.
        "seconds": {},
    }


def test_finish_clip_fails_when_the_frames_have_another_size():
    with pytest.raises(StageError, match="64 rows and 64 columns; asked for were 64 and 128"):
        finish_clip(inputs(WIDTH=np.array([128])), SPEC, {})


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"FRAMES": np.zeros((65, 64, 64, 3), np.uint8)}, "FRAMES holds 65 frames; the limit is"),
        (
            {"FRAMES": np.zeros((1, 1024, 64, 3), np.uint8), "HEIGHT": np.array([1024])},
            "HEIGHT is 1024; the limits are 64 to 128",
        ),
        ({"WIDTH": np.array([97])}, "WIDTH is 97; it must be a multiple of 32"),
        ({"FPS": np.array([0])}, "FPS is 0; the limits are 1 to 60"),
    ],
    ids=["frames", "height", "width", "fps"],
)
def test_finish_clip_refuses_when_no_request_makes_a_clip_so(changes, message):
    with pytest.raises(ValueError, match=message):
        finish_clip(inputs(**changes), SPEC, {})


def test_installed_versions_names_what_shapes_a_clip():
    assert {"numpy", "onnxruntime", "av", "tokenizers"} <= set(installed_versions())


@pytest.mark.server
def test_info_describes_the_clip_that_was_asked_for(tiny_server):
    video, info = generate(
        tiny_server,
        prompt="a red star",
        seed=9,
        num_inference_steps=3,
        guidance_scale=4.5,
        num_frames=40,
        fps=20,
        height=96,
        width=128,
    )

    assert video[4:8] == b"ftyp"
    assert (info["seed"], info["num_inference_steps"], info["guidance_scale"]) == (9, 3, 4.5)
    assert (info["num_frames"], info["fps"], info["height"], info["width"]) == (40, 20, 96, 128)
    stages = info["seconds"]
    assert list(stages) == [*ENSEMBLE_STAGES, "total"]
    assert all(value > 0 for value in stages.values())
    assert sum(stages[name] for name in ENSEMBLE_STAGES) <= stages["total"]
