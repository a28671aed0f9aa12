"""The exported checkpoint behind a real server; short clips of few steps."""

import hashlib
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.server.grpc_requests import generate

pytestmark = pytest.mark.server

SHORT = {"num_frames": 16, "num_inference_steps": 2}
REQUESTS = [
    {"prompt": "a red circle moves across a blue background", "seed": 1},
    {"prompt": "a green star", "seed": 2, "guidance_scale": 1.0},
    {"prompt": "звезда", "seed": 3, "negative_prompt": "snow"},
    {"prompt": "a small yellow ring spins on a sea", "seed": 4, "guidance_scale": 5.0},
]


def short_clip(server, fields) -> str:
    return hashlib.sha256(generate(server, **SHORT, **fields)[0]).hexdigest()


@pytest.fixture(scope="module")
def alone(exported_server):
    return [short_clip(exported_server, fields) for fields in REQUESTS]


@pytest.mark.parametrize("count", [1, 4])
def test_exported_checkpoint_gives_the_same_bytes_in_any_batch(exported_server, alone, count):
    with ThreadPoolExecutor(count) as pool:
        together = list(
            pool.map(lambda fields: short_clip(exported_server, fields), REQUESTS[:count])
        )

    assert together == alone[:count]


def test_exported_checkpoint_draws_what_info_says(exported_server):
    video, info = generate(exported_server, **SHORT, **REQUESTS[0])

    assert video[4:8] == b"ftyp"
    assert (info["num_frames"], info["height"], info["width"]) == (16, 256, 256)
    assert info["engine"] == "onnxruntime" and info["seed"] == 1
