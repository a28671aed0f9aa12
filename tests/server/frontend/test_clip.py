import asyncio
import json

import grpc
import numpy as np
import pytest
from tritonclient.grpc import service_pb2

from reelserve.pipeline.contract import ENSEMBLE_STAGES
from reelserve.server.frontend.admission import Place
from reelserve.server.frontend.call_errors import CallError, invalid, unavailable
from reelserve.server.frontend.clip import Clip, elapsed_by_stage
from reelserve.server.frontend.messages import output_arrays
from reelserve.server.progress import KEY, ProgressFolder, StageEnded
from tests.server.frontend.fakes import VIDEO, FakeUpstream, asynchronous, request, until
from tests.server.tiny_repository import SPEC

ACCEPTED = 100.0


def test_elapsed_by_stage_are_those_from_stage_to_stage():
    entries = [
        # A stage begins later than the one before it ends: the wait counts as its own.
        StageEnded(stage, ACCEPTED + index + 0.5, ACCEPTED + index + 1)
        for index, stage in enumerate(ENSEMBLE_STAGES)
    ]
    seconds = elapsed_by_stage(entries, ACCEPTED, ACCEPTED + 8)

    assert seconds == {**dict.fromkeys(ENSEMBLE_STAGES, 1.0), "total": 8.0}
    assert list(seconds) == [*ENSEMBLE_STAGES, "total"]
    assert elapsed_by_stage(entries[::-1], ACCEPTED, ACCEPTED + 8) == seconds


def test_elapsed_by_stage_join_stages_that_tell_nothing():
    """NVIDIA's own backends."""
    ended = [
        StageEnded("prompt_processor", 100.0, 101.0),
        StageEnded("video_diffusion", 103.0, 110.0),
        StageEnded("video_encoder", 114.0, 115.0),
    ]
    assert elapsed_by_stage(ended, ACCEPTED, 115.5) == {
        "prompt_processor": 1.0,
        "text_encoder": 2.0,
        "video_diffusion": 7.0,
        "vae_decoder+frame_consistency+upsampler": 4.0,
        "video_encoder": 1.0,
        "total": 15.5,
    }


def test_elapsed_by_stage_of_a_stage_that_leads_others_are_its_own():
    """`video_encoder` begins before the stages that it calls."""
    ended = [
        StageEnded("video_diffusion", 100.0, 104.0),
        StageEnded("vae_decoder", 104.5, 105.0),
        StageEnded("frame_consistency", 105.0, 106.0),
        StageEnded("upsampler", 106.0, 108.0),
        StageEnded("video_encoder", 104.2, 109.0),
    ]
    found = elapsed_by_stage(ended, ACCEPTED, 109.0)

    assert (found["vae_decoder"], found["upsampler"], found["video_encoder"]) == (1.0, 2.0, 1.0)


def test_elapsed_by_stage_of_a_clip_that_ended_early_are_those_of_its_stages():
    ended = [StageEnded("prompt_processor", 100.0, 101.0)]

    assert elapsed_by_stage(ended, ACCEPTED, 103.0) == {"prompt_processor": 1.0, "total": 3.0}
    assert elapsed_by_stage([], ACCEPTED, 103.0) == {"total": 3.0}


def test_elapsed_by_stage_are_never_below_zero_and_know_no_other_stages():
    ended = [StageEnded("prompt_processor", 9.0, 9.5), StageEnded("somebody", 1.0, 2.0)]
    assert elapsed_by_stage(ended, ACCEPTED, 101.0) == {"prompt_processor": 0.0, "total": 1.0}


class Drawn:
    """A clip whose Triton answers as the test says."""

    def __init__(self, folder):
        self.upstream, self.progress = FakeUpstream(), ProgressFolder(folder)
        self.ended = []
        place = Place(self.upstream.load, 1.0, 0.0)
        tensors = request(seed=3).tensors
        self.clip = Clip(tensors, self.upstream, place, self.progress, self.ended.append)
        self.folder = folder

    async def called(self, count=1):
        await until(lambda: len(self.upstream.calls) == count)

    def files(self):
        return sorted(path.suffix for path in self.folder.iterdir())


@asynchronous
async def test_clip_sends_its_key_and_tensors_and_gives_the_clip(tmp_path):
    drawn = Drawn(tmp_path)
    clip = drawn.clip
    clip.join()
    await drawn.called()
    message, _ = drawn.upstream.calls[0]
    assert message.id == clip.key and KEY.fullmatch(clip.key)
    assert [tensor.name for tensor in message.inputs] == ["PROMPT", "SEED"]
    assert drawn.files() == [".log"]

    drawn.progress.stage_ended(clip.key, "prompt_processor", clip.accepted)
    assert clip.stage() == "text_encoder"
    drawn.upstream.draw(0, seed=3)
    outputs = await clip.result
    info = json.loads(outputs["INFO"])
    assert outputs["VIDEO"] == VIDEO and info["seed"] == 3
    assert list(info["seconds"]) == ["prompt_processor", "total"]
    await clip.wait_ended()
    assert drawn.ended == [clip] and drawn.files() == []
    assert clip.ended_at is not None and len(clip.entries()) == 1


@asynchronous
async def test_clip_goes_on_until_the_last_one_has_left(tmp_path):
    drawn = Drawn(tmp_path)
    drawn.clip.join()
    drawn.clip.join()
    await drawn.called()

    assert not drawn.clip.leave()
    assert not drawn.clip.result.done() and drawn.files() == [".log"]
    assert drawn.clip.leave()
    assert drawn.clip.result.exception().code is grpc.StatusCode.CANCELLED
    assert drawn.files() == [".cancel", ".log"] and drawn.clip.left_at is not None
    assert not drawn.ended, "Triton's work goes on"
    drawn.upstream.fail(CallError(grpc.StatusCode.CANCELLED, "the request was cancelled"))
    await drawn.clip.wait_ended()
    assert drawn.ended == [drawn.clip] and drawn.files() == []


@asynchronous
async def test_clip_that_is_there_cannot_be_left(tmp_path):
    drawn = Drawn(tmp_path)
    drawn.clip.join()
    await drawn.called()
    drawn.upstream.draw()
    await drawn.clip.result

    assert not drawn.clip.leave()
    assert drawn.clip.result.exception() is None and drawn.clip.left_at is None


@asynchronous
async def test_clip_ends_when_triton_answers_although_nobody_waits(tmp_path):
    drawn = Drawn(tmp_path)
    drawn.clip.join()
    await drawn.called()
    drawn.clip.leave()
    drawn.upstream.draw()
    await drawn.clip.wait_ended()

    assert drawn.clip.result.exception().code is grpc.StatusCode.CANCELLED
    assert drawn.ended == [drawn.clip] and drawn.files() == []


@asynchronous
async def test_clip_fails_with_tritons_error(tmp_path):
    drawn = Drawn(tmp_path)
    drawn.clip.join()
    await drawn.called()
    drawn.upstream.fail(invalid("SEED is -1"))
    await drawn.clip.wait_ended()

    assert str(drawn.clip.result.exception()) == "SEED is -1"
    assert drawn.ended == [drawn.clip]


@asynchronous
async def test_clip_can_be_failed_from_outside(tmp_path):
    drawn = Drawn(tmp_path)
    await drawn.called()
    for words in ("the server is shutting down", "again"):
        drawn.clip.fail(unavailable(words, 5))

    assert str(drawn.clip.result.exception()) == "the server is shutting down; retry after 5 s"
    assert drawn.progress.is_cancelled(drawn.clip.key) and not drawn.ended


@pytest.mark.parametrize("damage", ["no outputs", "no info", "no json"])
@asynchronous
async def test_clip_fails_when_tritons_answer_is_damaged(tmp_path, damage):
    drawn = Drawn(tmp_path)
    await drawn.called()
    drawn.upstream.draw()
    reply = drawn.upstream.calls[0][1].result()
    if damage == "no outputs":
        reply.Clear()
    elif damage == "no info":
        del reply.outputs[1], reply.raw_output_contents[1]
    else:
        reply.raw_output_contents[1] = b"\1\0\0\0{"
    await drawn.clip.wait_ended()

    error = drawn.clip.result.exception()
    assert error.code is grpc.StatusCode.INTERNAL
    assert drawn.ended == [drawn.clip] and drawn.files() == []


@pytest.mark.parametrize("damage", [b"\xff\xfe\n", b"ended\nstep 1\nstep x y\n", b"\0" * 5000])
@asynchronous
async def test_clip_is_drawn_although_its_files_are_damaged(tmp_path, damage):
    drawn = Drawn(tmp_path)
    await drawn.called()
    (tmp_path / f"{drawn.clip.key}.log").write_bytes(damage)
    (tmp_path / f"{drawn.clip.key}.npy").write_bytes(damage)

    assert drawn.clip.entries() == [] and drawn.clip.stage() == "prompt_processor"
    assert await drawn.clip.preview() is None
    drawn.upstream.draw()
    assert (await drawn.clip.result)["VIDEO"] == VIDEO


@asynchronous
async def test_preview_is_the_middle_frame_as_png_once(tmp_path):
    drawn = Drawn(tmp_path)
    await drawn.called()
    latents = np.ones((SPEC.latents.channels, 4, 2, 2), np.float32)
    drawn.progress.leave_preview(drawn.clip.key, latents)
    coming = asyncio.ensure_future(drawn.clip.preview())
    await drawn.called(2)
    message, future = drawn.upstream.calls[1]
    assert (message.model_name, message.id) == ("vae_decoder", "")
    np.testing.assert_array_equal(output_arrays(_echo(message))["LATENTS"], latents[None])
    frames = np.zeros((1, 3, 8, 8, 3), np.uint8)
    future.set_result(_reply("FRAMES", "UINT8", frames))

    assert (await coming).startswith(b"\x89PNG")
    assert await drawn.clip.preview() is None


def _reply(name, datatype, array):
    reply = service_pb2.ModelInferResponse()
    reply.outputs.add(name=name, datatype=datatype, shape=array.shape)
    reply.raw_output_contents.append(array.tobytes())
    return reply


def _echo(message):
    tensor = message.inputs[0]
    array = np.frombuffer(message.raw_input_contents[0], np.float32).reshape(tuple(tensor.shape))
    return _reply(tensor.name, tensor.datatype, array)
