"""Requests and places, before Tritons that answer as a test tells them to."""

import asyncio
import json
from pathlib import Path

import grpc
import pytest

from reelserve.server.frontend.call_errors import CallError
from reelserve.server.frontend.upstream import Secret, Upstream
from tests.server.frontend.fakes import VIDEO, FakeUpstream, Rig, asynchronous, request, until


async def error_of(task) -> CallError:
    with pytest.raises(CallError) as caught:
        await task
    return caught.value


@asynchronous
async def test_service_draws_a_clip_and_counts_it(tmp_path):
    rig = Rig(tmp_path)
    task = await rig.drawing()
    key = rig.upstream.keys[0]
    rig.progress.stage_ended(key, "prompt_processor", 0.0)
    assert rig.in_flight == 1 and rig.metric("max_requests_in_flight") == 2
    rig.upstream.draw()
    outputs = await task

    assert outputs["VIDEO"] == VIDEO
    assert "prompt_processor" in json.loads(outputs["INFO"])["seconds"]
    assert rig.in_flight == 0 and rig.outcomes() == {"ok": 1}
    assert rig.metric("videos_total") == 1 and rig.metric("video_seconds_total") == 2
    assert rig.metric("stage_seconds_count", stage="prompt_processor") == 1
    assert rig.metric("request_seconds_count", model="text_to_video") == 1
    assert list(rig.folder.iterdir()) == []


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"prompt": b" "}, "PROMPT is ' '; it must hold at least 1 visible character"),
        ({"prompt": b"red " * 15}, "PROMPT holds 17 tokens; the limit is 16"),
        ({"seed": -1}, "SEED is -1; the limits are"),
        ({"num_frames": 18}, "NUM_FRAMES is 18; it must be a multiple of 4"),
    ],
    ids=["blank", "tokens", "seed", "frames"],
)
@asynchronous
async def test_service_refuses_what_is_out_of_range_without_asking_triton(tmp_path, fields, words):
    rig = Rig(tmp_path)
    error = await error_of(rig.ask(**fields))

    assert error.code is grpc.StatusCode.INVALID_ARGUMENT and error.message.startswith(words)
    assert rig.calls() == 0 and rig.outcomes() == {"invalid": 1}


@asynchronous
async def test_service_refuses_over_the_limit_and_says_when_to_try_again(tmp_path):
    rig = Rig(tmp_path)
    tasks = [await rig.drawing() for _ in range(2)]
    error = await error_of(rig.ask())

    assert error.code is grpc.StatusCode.UNAVAILABLE
    assert error.message == "2 requests are in flight, as many as the limit; retry after 5 s"
    assert rig.metric("refusals_total", model="text_to_video", reason="capacity") == 1
    rig.upstream.draw(0)
    await tasks[0]
    await rig.drawing()
    assert rig.outcomes() == {"ok": 1, "refused": 1}


@asynchronous
async def test_service_refuses_while_there_is_no_triton(tmp_path):
    rig = Rig(tmp_path)
    rig.upstream.load.ready = False
    error = await error_of(rig.ask())

    assert error.code is grpc.StatusCode.UNAVAILABLE
    assert error.message == "the server is starting; retry after 5 s"
    assert rig.metric("refusals_total", model="text_to_video", reason="starting") == 1
    assert not rig.service.ready


@asynchronous
async def test_service_refuses_a_deadline_that_cannot_be_kept(tmp_path):
    rig = Rig(tmp_path)
    for left_s, words in ((0.0, "the deadline leaves 0.0 s"), (-2.0, "the deadline leaves 0.0 s")):
        error = await error_of(rig.ask(left_s))
        assert (error.code, error.message) == (grpc.StatusCode.DEADLINE_EXCEEDED, words)
    first = await rig.drawing()
    await asyncio.sleep(0.05)
    rig.upstream.draw()
    await first
    error = await error_of(rig.ask(0.05, num_inference_steps=50))

    assert error.code is grpc.StatusCode.DEADLINE_EXCEEDED
    assert error.message.startswith("the deadline leaves 0.1 s; the clip is expected to take ")
    assert rig.calls() == 1 and rig.in_flight == 0
    assert rig.metric("refusals_total", model="text_to_video", reason="deadline") == 3


@asynchronous
async def test_a_place_is_kept_until_triton_has_ended_its_work(tmp_path):
    rig = Rig(tmp_path, limit=1)
    task = await rig.drawing()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    key = rig.upstream.keys[0]

    assert rig.progress.is_cancelled(key) and rig.in_flight == 1
    assert (await error_of(rig.ask())).code is grpc.StatusCode.UNAVAILABLE
    assert rig.service.abandoned_s(rig.upstream.load) > 0
    rig.upstream.fail(CallError(grpc.StatusCode.CANCELLED, "the request was cancelled"))
    await until(lambda: rig.in_flight == 0)
    assert rig.service.abandoned_s(rig.upstream.load) == 0
    assert not rig.progress.is_cancelled(key)
    assert rig.outcomes() == {"cancelled": 1, "refused": 1}
    assert rig.metric("cancels_total", model="text_to_video", stage="prompt_processor") == 1


@asynchronous
async def test_a_deadline_that_passes_is_told_at_once_and_drops_the_clip(tmp_path):
    rig = Rig(tmp_path)
    error = await error_of(rig.ask(0.05))

    assert error.code is grpc.StatusCode.DEADLINE_EXCEEDED
    assert error.message == "the deadline of the request has passed"
    assert rig.in_flight == 1 and rig.progress.is_cancelled(rig.upstream.keys[0])
    assert rig.outcomes() == {"cancelled": 1}


@asynchronous
async def test_one_request_fails_when_triton_cannot_draw_it(tmp_path):
    rig = Rig(tmp_path)
    one, other = await rig.drawing(), await rig.drawing()
    rig.upstream.fail(CallError(grpc.StatusCode.INTERNAL, "upsampler: no memory"), 0)
    rig.upstream.draw(1)

    assert (await error_of(one)).message == "upsampler: no memory"
    assert (await other)["VIDEO"] == VIDEO
    assert rig.in_flight == 0 and rig.outcomes() == {"failed": 1, "ok": 1}


@asynchronous
async def test_equal_requests_are_drawn_once_when_answers_are_shared(tmp_path):
    rig = Rig(tmp_path, limit=1, share_s=60)
    first = await rig.drawing(seed=7)
    second = rig.ask(seed=7, priority=b"batch")
    await until(lambda: rig.metric("shared_answers_total", how="joined") == 1)
    rig.upstream.draw(video=b"drawn")
    cached = await rig.ask(seed=7)

    assert {answer["VIDEO"] for answer in (await first, await second, cached)} == {b"drawn"}
    assert rig.calls() == 1 and rig.outcomes() == {"ok": 3}
    assert rig.metric("shared_answers_total", how="cached") == 1
    assert rig.metric("videos_total") == 1


@asynchronous
async def test_a_shared_clip_goes_on_until_the_last_one_has_left(tmp_path):
    rig = Rig(tmp_path, share_s=60)
    first = await rig.drawing(seed=7)
    second = rig.ask(seed=7)
    await until(lambda: rig.metric("shared_answers_total", how="joined") == 1)
    first.cancel()
    await until(first.done)
    assert not rig.progress.is_cancelled(rig.upstream.keys[0])
    second.cancel()
    await until(second.done)
    assert rig.progress.is_cancelled(rig.upstream.keys[0])

    third = await rig.drawing(seed=7)
    assert rig.calls() == 2, "a clip that was dropped is shared with nobody"
    rig.upstream.draw(1, video=b"anew")
    assert (await third)["VIDEO"] == b"anew"


@asynchronous
async def test_a_clip_that_failed_is_shared_with_those_that_waited_alone(tmp_path):
    rig = Rig(tmp_path, share_s=60)
    first, second = await rig.drawing(seed=7), rig.ask(seed=7)
    await until(lambda: rig.metric("shared_answers_total", how="joined") == 1)
    rig.upstream.fail(CallError(grpc.StatusCode.INTERNAL, "x"))
    assert {(await error_of(first)).message, (await error_of(second)).message} == {"x"}
    await rig.drawing(seed=7)

    assert rig.calls() == 2


@asynchronous
async def test_clips_are_shared_out_over_the_tritons(tmp_path):
    rig = Rig(tmp_path, limit=4, tritons=2)
    tasks = [await rig.drawing() for _ in range(8)]
    assert [len(upstream.calls) for upstream in rig.upstreams] == [4, 4]
    words = "8 requests are in flight, as many as the limit; retry after 5 s"
    assert (await error_of(rig.ask())).message == words

    rig.upstreams[1].load.ready = False
    for number in range(4):
        rig.upstreams[0].draw(number)
    rig.upstreams[1].fail(CallError(grpc.StatusCode.UNAVAILABLE, "lost"), 2)
    await until(lambda: sum(task.done() for task in tasks) == 5)
    await rig.drawing()
    assert [len(upstream.calls) for upstream in rig.upstreams] == [5, 4]
    assert rig.metric("tritons_ready") == 1


@asynchronous
async def test_drain_refuses_what_is_new_and_waits_for_what_is_in_flight(tmp_path):
    rig = Rig(tmp_path)
    task = await rig.drawing()
    draining = asyncio.create_task(rig.service.drain(60.0))
    await until(lambda: rig.service.draining)
    error = await error_of(rig.ask())
    assert (error.code, error.message) == (
        grpc.StatusCode.UNAVAILABLE,
        "the server is shutting down; retry after 5 s",
    )
    assert not rig.service.ready and not draining.done()
    rig.upstream.draw()

    assert await draining
    assert (await task)["VIDEO"] == VIDEO
    assert rig.metric("refusals_total", model="text_to_video", reason="draining") == 1


@asynchronous
async def test_drain_ends_at_once_when_nothing_is_in_flight(tmp_path):
    assert await Rig(tmp_path).service.drain(0.001)


@asynchronous
async def test_fail_all_ends_what_drain_could_not_wait_for(tmp_path):
    rig = Rig(tmp_path)
    tasks = [await rig.drawing() for _ in range(2)]
    assert not await rig.service.drain(0.05)
    rig.service.fail_all()

    for task in tasks:
        error = await error_of(task)
        assert error.code is grpc.StatusCode.UNAVAILABLE
        assert error.message == "the server is shutting down; retry after 5 s"
    assert all(rig.progress.is_cancelled(key) for key in rig.upstream.keys)


@asynchronous
async def test_remaining_is_none_until_something_is_known(tmp_path):
    rig = Rig(tmp_path)
    clip = rig.service.begin(request(), float("inf"))
    assert rig.service.remaining_s(clip) is None
    await until(lambda: rig.calls() == 1)
    rig.upstream.draw()
    await rig.service.wait(clip, float("inf"), clip.accepted)
    other = rig.service.begin(request(), float("inf"))

    assert rig.service.remaining_s(other) >= 0
    assert rig.service.remaining_s(clip) is None, "it is there"
    rig.service.leave(other)


def test_fake_upstream_looks_like_the_real_one():
    real = Upstream("x", Secret(), Path("/no/such/socket"), lambda: None)
    for name in ("load", "metrics_socket", "infer", "pass_on", "starting"):
        assert hasattr(real, name) and hasattr(FakeUpstream(), name)
    assert str(real.starting()) == str(FakeUpstream().starting())
