"""Streams from a server that answers as a test tells it to."""

from __future__ import annotations

import asyncio
import gc
import threading
from concurrent.futures import ThreadPoolExecutor

import grpc
import pytest
from tritonclient.grpc import service_pb2_grpc

from reelserve.client import (
    AsyncClient,
    Client,
    DeadlineExceededError,
    InternalError,
    InvalidArgumentError,
    NoServerError,
    NotReadyError,
    UnavailableError,
)
from tests.client.conftest import MP4, event, stream_response

PNG = b"\x89PNG"
kept = []
"""Streams that a test holds on to."""
EVENTS = [
    {"EVENT": event("stage", "text_encoder")},
    {"EVENT": event("step", "video_diffusion", step=1, steps=8)},
    {"EVENT": event("preview", "video_diffusion"), "PREVIEW": PNG},
    {"EVENT": event("waiting", "upsampler", remaining_s=None)},
]


def test_stream_gives_every_event_and_ends_with_the_clip(fake_triton):
    fake_triton.events = EVENTS
    with Client(fake_triton.url) as client:
        events = list(client.stream("a circle", seed=3, priority="batch", timeout_s=50))

    assert [one.kind for one in events] == ["stage", "step", "preview", "waiting", "clip"]
    assert (events[1].step, events[1].steps, events[1].remaining_s) == (1, 8, 2.5)
    assert events[2].preview == PNG and events[3].remaining_s is None
    assert events[-1].video.mp4 == MP4
    request = fake_triton.requests[0]
    assert request.model_name == "text_to_video" and request.parameters["progress"].bool_param
    assert request.parameters["timeout"].int64_param == 50_000_000
    assert fake_triton.received()["PRIORITY"] == b"batch"
    # Crashes Triton 2.51 now and then.
    assert "triton_grpc_error" not in fake_triton.metadata


def test_generate_tells_the_server_its_deadline(fake_triton):
    with Client(fake_triton.url, timeout_s=7) as client:
        client.generate("a circle")

    assert fake_triton.requests[0].parameters["timeout"].int64_param == 7_000_000


def leave_by_break(stream):
    kept.append(stream)
    for _ in stream:
        break


def leave_by_error(stream):
    kept.append(stream)
    with pytest.raises(ZeroDivisionError):
        for event in stream:
            event.seconds / 0


def leave_by_close(stream):
    next(stream)
    stream.close()


def leave_by_context(stream):
    with stream:
        next(stream)


def leave_by_forgetting(stream):
    next(stream)
    del stream
    gc.collect()


@pytest.mark.parametrize(
    "leave", [leave_by_break, leave_by_error, leave_by_close, leave_by_context, leave_by_forgetting]
)
def test_stream_cancels_the_request_when_it_is_left(fake_triton, leave):
    fake_triton.events, fake_triton.hold = EVENTS, threading.Event()
    with Client(fake_triton.url) as client:
        # A name here would keep it alive.
        leave(client.stream("a circle"))
        assert fake_triton.cancelled.wait(10)
        assert [list(stream) for stream in kept] == [[] for _ in kept]
    kept.clear()


def test_stream_that_is_interrupted_when_it_begins_leaves_no_trace(fake_triton, monkeypatch):
    def interrupt(*arguments):
        raise KeyboardInterrupt

    with Client(fake_triton.url) as client:
        with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
            patch.setattr("reelserve.client._stream.Watch", interrupt)
            client.stream("a circle")
        # Warnings of exceptions that nobody could catch are errors here.
        gc.collect()


def test_stream_goes_on_after_single_events(fake_triton):
    fake_triton.events = EVENTS
    with Client(fake_triton.url) as client, client.stream("a circle") as stream:
        assert [next(stream).kind, next(stream).kind] == ["stage", "step"]
        assert [one.kind for one in stream] == ["preview", "waiting", "clip"]


def test_stream_takes_the_clip_of_a_triton_without_events(fake_triton, monkeypatch):
    def answer(self, requests, context):
        yield stream_response(next(requests), self.outputs)

    monkeypatch.setattr(type(fake_triton), "ModelStreamInfer", answer)
    server = grpc.server(ThreadPoolExecutor(2))
    service_pb2_grpc.add_GRPCInferenceServiceServicer_to_server(fake_triton, server)
    url = f"127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}"
    server.start()
    with Client(url) as client:
        (only,) = client.stream("a circle")
        assert (only.kind, only.video.mp4, only.seconds) == ("clip", MP4, 4.01)
        assert client.generate("a circle").mp4 == MP4
    server.stop(grace=None).wait()


def test_stream_ends_after_it_was_closed(fake_triton):
    fake_triton.events = EVENTS
    with Client(fake_triton.url) as client, client.stream("a circle") as stream:
        next(stream)
        stream.close()
        assert list(stream) == []


@pytest.mark.parametrize(
    ("status", "details", "kind"),
    [
        (grpc.StatusCode.INVALID_ARGUMENT, "SEED is -1", InvalidArgumentError),
        (grpc.StatusCode.UNAVAILABLE, "12 requests are in flight", UnavailableError),
        (grpc.StatusCode.INTERNAL, "upsampler: no memory", InternalError),
        (grpc.StatusCode.NOT_FOUND, "unknown model", NotReadyError),
    ],
)
def test_stream_raises_the_error_of_its_status(fake_triton, status, details, kind):
    fake_triton.events, fake_triton.status, fake_triton.details = EVENTS, status, details
    with Client(fake_triton.url) as client:
        stream = client.stream("a circle")
        assert [next(stream).kind for _ in EVENTS][-1] == "waiting"
        with pytest.raises(kind, match=details):
            next(stream)
        assert list(stream) == []


@pytest.mark.parametrize(
    ("text", "kind", "words"),
    [
        ("INVALID_ARGUMENT: SEED is -1", InvalidArgumentError, "^SEED is -1$"),
        ("UNAVAILABLE: 12 requests are in flight", UnavailableError, "12 requests are in flight"),
        ("INTERNAL: upsampler: no memory", InternalError, "upsampler: no memory"),
        ("Request for unknown model: 'x' is not found", NotReadyError, "unknown model: 'x'"),
        ("upsampler: no memory", InternalError, "upsampler: no memory"),
    ],
)
def test_stream_raises_the_error_that_a_response_tells(fake_triton, text, kind, words):
    fake_triton.events, fake_triton.error = EVENTS, text
    with Client(fake_triton.url) as client:
        stream = client.stream("a circle")
        assert [next(stream).kind for _ in EVENTS][-1] == "waiting"
        with pytest.raises(kind, match=words):
            next(stream)
        assert list(stream) == []


def test_stream_raises_deadline_exceeded(fake_triton):
    fake_triton.hold = threading.Event()
    with Client(fake_triton.url) as client, pytest.raises(DeadlineExceededError):
        list(client.stream("a circle", timeout_s=0.3))


def test_stream_raises_no_server_when_nothing_answers():
    with Client("127.0.0.1:1") as client, pytest.raises(NoServerError):
        list(client.stream("a circle"))


@pytest.mark.parametrize(
    "outputs", [{"EVENT": b"{"}, {"EVENT": b"[]"}, {"EVENT": event("clip", "x"), "VIDEO": b"v"}]
)
def test_stream_raises_internal_when_an_event_cannot_be_read(fake_triton, outputs):
    fake_triton.events = [outputs]
    with Client(fake_triton.url) as client, pytest.raises(InternalError):
        list(client.stream("a circle"))


def test_stream_leaves_out_what_only_a_newer_client_knows(fake_triton):
    newer = [{"EVENT": event("loop", "x")}, {"EVENT": event("waiting", "x", gpu=1)}]
    fake_triton.events = newer
    with Client(fake_triton.url) as client:
        assert [one.kind for one in client.stream("a circle")] == ["waiting", "clip"]


def test_stream_raises_before_anything_is_sent_when_a_value_does_not_fit(fake_triton):
    with Client(fake_triton.url) as client, pytest.raises(InvalidArgumentError, match="SEED"):
        client.stream("a circle", seed="x")
    assert fake_triton.requests == []


def test_streams_of_one_client_run_at_the_same_time(fake_triton):
    fake_triton.events = EVENTS
    with Client(fake_triton.url) as client, ThreadPoolExecutor(4) as pool:
        clips = list(pool.map(lambda seed: list(client.stream("a", seed=seed)), range(4)))

    assert all(events[-1].video.mp4 == MP4 for events in clips)


def test_async_stream_gives_the_same_events(fake_triton):
    fake_triton.events = EVENTS

    async def collect():
        async with AsyncClient(fake_triton.url) as client:
            return [one async for one in client.stream("a circle")]

    events = asyncio.run(collect())
    assert [one.kind for one in events] == ["stage", "step", "preview", "waiting", "clip"]
    assert events[-1].video.mp4 == MP4


def test_async_stream_cancels_the_request_when_the_task_is_cancelled(fake_triton):
    fake_triton.hold = threading.Event()

    async def collect():
        async with AsyncClient(fake_triton.url) as client:
            async with client.stream("a circle") as stream:
                async for _ in stream:
                    pass

    async def cancel():
        task = asyncio.create_task(collect())
        while not fake_triton.requests:
            await asyncio.sleep(0.01)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(cancel())
    assert fake_triton.cancelled.wait(10)


def test_async_stream_cancels_the_request_when_its_loop_is_left(fake_triton):
    fake_triton.events, fake_triton.hold = EVENTS, threading.Event()

    async def leave():
        async with AsyncClient(fake_triton.url) as client:
            stream = client.stream("a circle")
            async for _ in stream:
                break
            assert await asyncio.to_thread(fake_triton.cancelled.wait, 10)
            assert [one async for one in stream] == []

    asyncio.run(leave())


def test_async_stream_goes_on_after_single_events(fake_triton):
    fake_triton.events = EVENTS

    async def collect():
        async with AsyncClient(fake_triton.url) as client:
            stream = client.stream("a circle")
            return [(await anext(stream)).kind, *[one.kind async for one in stream]]

    assert asyncio.run(collect()) == ["stage", "step", "preview", "waiting", "clip"]


def test_async_stream_raises_the_error_of_its_status(fake_triton):
    fake_triton.status, fake_triton.details = grpc.StatusCode.UNAVAILABLE, "full"

    async def collect():
        async with AsyncClient(fake_triton.url) as client:
            return [one async for one in client.stream("a circle")]

    with pytest.raises(UnavailableError, match="full"):
        asyncio.run(collect())
