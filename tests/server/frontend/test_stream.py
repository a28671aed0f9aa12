import asyncio
import json

import numpy as np
import pytest

from reelserve.pipeline.contract import ENSEMBLE_STAGES
from reelserve.server.frontend import stream
from reelserve.server.frontend.stream import clip_events
from reelserve.server.progress import PreviewLeft, StageEnded, Stepped
from tests.server.frontend.fakes import Rig, asynchronous, request, until
from tests.server.frontend.test_clip import _reply


class Followed:
    """A clip, and what was told of it."""

    def __init__(self, folder, **options):
        self.rig = Rig(folder, **options)
        self.clip = self.rig.service.begin(request(), float("inf"))
        self.told: list[dict[str, bytes]] = []
        self.task = asyncio.create_task(self._follow())

    async def _follow(self):
        async for outputs in clip_events(self.clip, self.rig.service.remaining_s):
            self.told.append(outputs)

    @property
    def events(self):
        return [json.loads(outputs["EVENT"]) for outputs in self.told]

    @property
    def kinds(self):
        return [event["kind"] for event in self.events]

    def stage(self, name):
        self.rig.progress.stage_ended(self.clip.key, name, 0.0)

    def step(self, *steps):
        for step in steps:
            self.rig.progress.stepped(self.clip.key, step, 4, 0.0)

    async def end(self):
        await until(lambda: self.rig.calls() >= 1)
        self.rig.upstream.draw(0)
        await self.task


@asynchronous
async def test_follow_tells_stages_steps_and_the_preview_in_order(tmp_path):
    followed = Followed(tmp_path)
    for stage in ENSEMBLE_STAGES[:2]:
        followed.stage(stage)
    for step in range(1, 5):
        followed.step(step)
        await until(lambda step=step: followed.kinds.count("step") == step)
    followed.rig.progress.leave_preview(followed.clip.key, np.zeros((16, 4, 2, 2), np.float32))
    await until(lambda: followed.rig.calls() == 2)
    frames = np.zeros((1, 4, 8, 8, 3), np.uint8)
    followed.rig.upstream.calls[1][1].set_result(_reply("FRAMES", "UINT8", frames))
    await until(lambda: "preview" in followed.kinds)
    for stage in ENSEMBLE_STAGES[2:]:
        followed.stage(stage)
    await followed.end()

    kinds = [kind for kind in followed.kinds if kind != "waiting"]
    assert kinds == ["stage"] * 2 + ["step"] * 4 + ["preview"] + ["stage"] * 5
    events = followed.events
    assert [e["stage"] for e in events if e["kind"] == "stage"] == list(ENSEMBLE_STAGES)
    steps = [(e["step"], e["steps"], e["stage"]) for e in events if e["kind"] == "step"]
    assert steps == [(step, 4, "video_diffusion") for step in (1, 2, 3, 4)]
    (png,) = [outputs["PREVIEW"] for outputs in followed.told if "PREVIEW" in outputs]
    assert png.startswith(b"\x89PNG")
    seconds = [event["seconds"] for event in events]
    assert seconds == sorted(seconds)


@asynchronous
async def test_follow_tells_the_newest_of_steps_that_came_together(tmp_path):
    followed = Followed(tmp_path)
    followed.step(1, 2, 3)
    await until(lambda: followed.kinds == ["step"])
    assert followed.events[0]["step"] == 3
    await followed.end()


def test_newest_steps_keeps_what_is_between_steps():
    stage, preview = StageEnded("text_encoder", 0, 1), PreviewLeft()
    entries = [stage, Stepped(1, 9), Stepped(2, 9), preview, Stepped(3, 9), Stepped(4, 9)]
    assert stream._newest_steps(entries) == [stage, Stepped(2, 9), preview, Stepped(4, 9)]
    assert stream._newest_steps([]) == []


@asynchronous
async def test_follow_says_that_it_waits_when_nothing_is_new(tmp_path, monkeypatch):
    monkeypatch.setattr(stream, "QUIET_S", 0.06)
    followed = Followed(tmp_path)
    followed.stage("prompt_processor")
    await until(lambda: followed.kinds.count("waiting") >= 2)
    assert followed.kinds[0] == "stage" and followed.events[-1]["stage"] == "text_encoder"
    await followed.end()


@asynchronous
async def test_follow_tells_what_was_told_before_the_end(tmp_path):
    followed = Followed(tmp_path)
    await until(lambda: followed.rig.calls() == 1)
    followed.stage("prompt_processor")
    followed.stage("video_encoder")
    await followed.end()

    assert followed.kinds == ["stage", "stage"]


@pytest.mark.parametrize("reply", ["error", "no frames"])
@asynchronous
async def test_follow_goes_on_when_there_is_no_preview(tmp_path, reply):
    followed = Followed(tmp_path)
    followed.rig.progress.leave_preview(followed.clip.key, np.zeros((16, 4, 2, 2), np.float32))
    await until(lambda: followed.rig.calls() == 2)
    if reply == "error":
        followed.rig.upstream.fail(followed.rig.upstream.starting(), 1)
    else:
        followed.rig.upstream.draw(1)
    followed.step(4)
    await followed.end()

    assert set(followed.kinds) - {"waiting"} == {"step"}


@asynchronous
async def test_follow_ends_when_the_clip_fails(tmp_path):
    followed = Followed(tmp_path)
    await until(lambda: followed.rig.calls() == 1)
    followed.rig.upstream.fail(followed.rig.upstream.starting())
    await followed.task

    assert followed.clip.result.exception() is not None


@asynchronous
async def test_a_preview_that_nobody_wants_any_more_is_let_come(tmp_path):
    followed = Followed(tmp_path)
    followed.rig.progress.leave_preview(followed.clip.key, np.zeros((16, 4, 2, 2), np.float32))
    await until(lambda: followed.rig.calls() == 2)
    followed.task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await followed.task
    preview = followed.rig.upstream.calls[1][1]

    assert not preview.done(), "Triton's work is not cancelled"
    assert len(stream._drawn) == 1
    preview.set_result(_reply("FRAMES", "UINT8", np.zeros((1, 1, 8, 8, 3), np.uint8)))
    await until(lambda: not stream._drawn)
