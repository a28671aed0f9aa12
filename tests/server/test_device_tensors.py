"""Frames that `video_encoder` leads from stage to stage itself, as on a GPU.

There they must not be looked at; here every tensor is on the CPU, so the stage of a test is told to
take frames for what it cannot read.
"""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from reelserve.server.launch.run_folder import SHARED_MEMORY
from reelserve.server.launch.running_server import Server
from reelserve.server.launch.tritons import ServeOptions
from tests.server.grpc_requests import executions, generate
from tests.server.probes import insert_code

pytestmark = pytest.mark.server

BLIND = '''"""An encoder that sees no frames until it encodes them."""

from reelserve.server import triton_io
from reelserve.server.stages import frames_in_place

FRAMES = ("FRAMES", "CONSISTENT_FRAMES", "UPSAMPLED_FRAMES")
seen, led = triton_io._read, frames_in_place.frames_in_place
triton_io._read = lambda tensor: tensor if tensor.name() in FRAMES else seen(tensor)
frames_in_place.frames_in_place = lambda *arguments: seen(led(*arguments))

'''
REQUEST = {"prompt": "a red star", "seed": 3, "num_frames": 32, "height": 96}


@pytest.fixture(scope="module")
def in_place_server(tiny_repository: Path, tmp_path_factory):
    folder = tmp_path_factory.mktemp("in_place") / "model_repository"
    shutil.copytree(tiny_repository, folder)
    ensemble = folder / "text_to_video"
    shutil.copy(ensemble / "configs" / "pytorch.pbtxt", ensemble / "config.pbtxt")
    file = folder / "video_encoder" / "1" / "model.py"
    insert_code(file, BLIND)
    with Server(ServeOptions(folder)) as server:
        yield server


def test_clip_is_the_same_when_frames_are_led_in_place(tiny_server, in_place_server):
    stages = ("vae_decoder", "frame_consistency", "upsampler", "video_encoder")
    before = [executions(in_place_server, stage)[1] for stage in stages]
    expected, expected_info = generate(tiny_server, **REQUEST)
    found, info = generate(in_place_server, **REQUEST)
    after = [executions(in_place_server, stage)[1] for stage in stages]

    assert found == expected
    assert (info["num_frames"], info["height"]) == (32, 96)
    assert list(info["seconds"]) == list(expected_info["seconds"]), "every stage tells"
    assert [now - then for now, then in zip(after, before, strict=True)] == [1, 1, 1, 1]


def test_frames_that_were_led_in_place_are_freed(in_place_server):
    for _ in range(3):
        generate(in_place_server, **REQUEST)
    before = shared_memory_bytes(in_place_server)
    for _ in range(20):
        generate(in_place_server, **REQUEST)
    # One clip's frames are 0.9 MB after the upsampler; twenty that stayed would show.
    assert shared_memory_bytes(in_place_server) - before < 2 * 2**20


def shared_memory_bytes(server: Server) -> int:
    regions = SHARED_MEMORY.glob(f"{server.running.region_prefix}*")
    return sum(region.stat().st_blocks * 512 for region in regions)
