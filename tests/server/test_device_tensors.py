"""Frames that the conductor passes on without looking at them.

On a GPU they must not be; here every tensor is on the CPU, so the conductor of a test is told to
take frames for what it cannot read.
"""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from reelserve.server.board import SHARED_MEMORY
from reelserve.server.launcher import Server
from reelserve.server.serving import ServeOptions
from tests.server.grpc_requests import generate

BLIND = '''"""A conductor that sees no frames."""

from reelserve.server import triton_io

FRAMES = ("FRAMES", "CONSISTENT_FRAMES", "UPSAMPLED_FRAMES")
seen = triton_io._read
triton_io._read = lambda tensor: tensor if tensor.name() in FRAMES else seen(tensor)

'''
REQUEST = {"prompt": "a red star", "seed": 3, "num_frames": 32, "height": 96}


@pytest.fixture(scope="module")
def blind_server(tiny_repository: Path, tmp_path_factory):
    folder = tmp_path_factory.mktemp("blind") / "model_repository"
    shutil.copytree(tiny_repository, folder)
    for model in ("text_to_video", "text_to_video_stream"):
        file = folder / model / "1" / "model.py"
        file.write_text(BLIND + file.read_text())
    with Server(ServeOptions(folder)) as server:
        yield server


@pytest.mark.server
def test_clip_is_the_same_when_frames_are_passed_on_unseen(tiny_server, blind_server):
    expected, _ = generate(tiny_server, **REQUEST)
    found, info = generate(blind_server, **REQUEST)
    assert found == expected
    assert (info["num_frames"], info["height"]) == (32, 96)


@pytest.mark.server
def test_frames_that_were_passed_on_are_freed(blind_server):
    for _ in range(3):
        generate(blind_server, **REQUEST)
    before = shared_memory_bytes(blind_server)
    for _ in range(20):
        generate(blind_server, **REQUEST)
    # One clip's frames are 0.9 MB after the upsampler; twenty that stayed would show.
    assert shared_memory_bytes(blind_server) - before < 2 * 2**20


def shared_memory_bytes(server: Server) -> int:
    regions = SHARED_MEMORY.glob(f"{server._shm_prefix}*")
    return sum(region.stat().st_blocks * 512 for region in regions)
