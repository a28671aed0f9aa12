import asyncio
import os
import re
from dataclasses import replace

import pytest

from reelserve.pipeline.checkpoint import CheckpointSpec, IntRange
from reelserve.server.launch import serving
from reelserve.server.launch.repository_check import RepositoryError
from reelserve.server.launch.running_server import Server
from reelserve.server.launch.server_log import ServerLog
from reelserve.server.launch.shared_memory import (
    MIB,
    LargestClip,
    Needed,
    check_shared_memory,
    shared_memory_need,
)
from reelserve.server.launch.triton_process import ServerError
from reelserve.server.launch.tritons import ServeOptions
from tests.server.tiny_repository import SPEC, write_lock, write_tiny_repository

LTX = replace(
    SPEC,
    latents=replace(SPEC.latents, channels=128, temporal_compression=8, causal=True),
    limits=replace(
        SPEC.limits,
        num_frames=IntRange(9, 161, 161, multiple_of=8, offset=1),
        height=IntRange(64, 512, 512, multiple_of=32),
        width=IntRange(64, 704, 704, multiple_of=32),
    ),
)
"""Sizes of LTX-Video's default clip: 174 MB of frames."""


def save(spec: CheckpointSpec, repository) -> None:
    spec.save(repository / "prompt_processor" / "1")


@pytest.fixture
def repository(tmp_path):
    """One that a test may change."""
    return write_tiny_repository(tmp_path / "repository")


def test_largest_clip_follows_from_the_limits_of_the_checkpoint():
    clip = LargestClip.of(LTX)

    assert clip.frames == 161 * 512 * 704 * 3
    assert clip.latents == 128 * 21 * 16 * 22 * 4
    assert clip.window == 128 * 8 * 16 * 22 * 4
    assert clip.windows == 5, "8 latent frames each, 4 of them shared: 0, 4, 8, 12 and 13"


def test_need_grows_with_the_clip_and_the_places_and_the_tritons(repository):
    small = shared_memory_need(repository)
    save(LTX, repository)
    large = shared_memory_need(repository)

    assert large.clip_bytes == 161 * 512 * 704 * 3 and large.places == 4
    # Out of the decoder, in and out of two stages, and into the encoder.
    assert 6 * large.clip_bytes < large.need_bytes < 12 * large.clip_bytes
    assert small.need_bytes < 128 * MIB, "small clips start where little is free"
    twice = shared_memory_need(repository, tritons=2)
    assert (twice.need_bytes, twice.places) == (2 * large.need_bytes, 8)
    config = repository / "video_diffusion" / "config.pbtxt"
    config.write_text(config.read_text().replace('string_value: "4"', 'string_value: "1"'))
    assert shared_memory_need(repository).need_bytes < large.need_bytes


def test_need_is_small_where_frames_stay_on_a_gpu_or_in_nvidias_own_backends(repository):
    save(LTX, repository)
    usual = shared_memory_need(repository).need_bytes

    assert shared_memory_need(repository, "pytorch").need_bytes < usual / 2
    assert shared_memory_need(repository, native=True).need_bytes < usual / 2


def test_need_refuses_a_damaged_checkpoint(repository):
    (repository / "prompt_processor" / "1" / "checkpoint.json").write_text("{}")

    with pytest.raises(RepositoryError, match=r"checkpoint\.json cannot be read"):
        shared_memory_need(repository)


def test_check_refuses_with_the_number_and_the_remedy_when_there_is_too_little():
    needed = Needed(2**60, 174 * MIB, 4)

    with pytest.raises(ServerError) as caught:
        check_shared_memory(needed)

    assert re.fullmatch(
        r"/dev/shm has \d+ MiB free; this repository needs 1099511627776 MiB, for clips of up to "
        r"174 MiB of frames and 4 at once \(in a container: --shm-size=1099511627776m; elsewhere: "
        r"mount -o remount,size=1099511627776m /dev/shm; or export with smaller limits\)",
        str(caught.value),
    )


def test_check_refuses_when_there_is_no_shared_memory(tmp_path):
    with pytest.raises(ServerError, match="missing; Triton's Python backend needs it"):
        check_shared_memory(Needed(1, 1, 1), tmp_path / "none")


def test_serve_refuses_at_once_when_the_largest_clip_does_not_fit(repository):
    state = os.statvfs("/dev/shm")
    pixels = 2 * state.f_bavail * state.f_frsize
    limits = replace(SPEC.limits, num_frames=IntRange(16, pixels // 2**14, 16, multiple_of=4))
    save(replace(SPEC, limits=limits), repository)
    write_lock(repository)

    with pytest.raises(ServerError, match=r"^/dev/shm has .* --shm-size=\d+m"):
        Server(ServeOptions(repository)).start()


def test_what_a_killed_server_left_is_gone_before_shared_memory_is_measured(
    tiny_repository, tmp_path, monkeypatch
):
    token = "0" * 32
    (tmp_path / f"reelserve-{token}").mkdir()
    (tmp_path / f"reelserve_{token}_0_region").write_text("x")
    seen = []

    def measure(needed, folder=tmp_path):
        seen.extend(folder.iterdir())
        raise ServerError("too small")

    monkeypatch.setattr(serving, "SHARED_MEMORY", tmp_path)
    monkeypatch.setattr(serving, "check_shared_memory", measure)
    with pytest.raises(ServerError, match="too small"):
        asyncio.run(serving.serve(ServeOptions(tiny_repository), lambda running: None, ServerLog()))
    assert seen == []
