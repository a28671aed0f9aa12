"""Links that fall silent, and servers that say nothing for a while and live."""

from __future__ import annotations

import asyncio
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from reelserve.client import AsyncClient, Client, NoServerError, _silence
from reelserve.tools.faults.relay import relay
from tests.client.conftest import MP4, event

ASK_AFTER_S, ANSWER_WITHIN_S = 0.4, 0.6
LOST = "the connection is lost: nothing has come for 1 s; check the network"


@pytest.fixture(autouse=True)
def short_silences(monkeypatch):
    monkeypatch.setattr(_silence, "ASK_AFTER_S", ASK_AFTER_S)
    for module in ("_silence", "_client", "_async_client"):
        monkeypatch.setattr(f"reelserve.client.{module}.ANSWER_WITHIN_S", ANSWER_WITHIN_S)


@pytest.fixture
def link(fake_triton):
    with relay(fake_triton.url) as between:
        yield between


def draw(client: Client, method: str):
    return list(client.stream("a circle")) if method == "stream" else client.generate("a circle")


async def draw_async(client: AsyncClient, method: str):
    if method == "generate":
        return await client.generate("a circle")
    return [event async for event in client.stream("a circle")]


def silence(fake_triton, link) -> None:
    while not fake_triton.requests:
        time.sleep(0.01)
    link.silence()


@pytest.mark.parametrize("method", ["generate", "stream"])
def test_call_raises_when_its_link_falls_silent_and_the_next_one_works(fake_triton, link, method):
    fake_triton.events, fake_triton.hold = [{"EVENT": event("step", "x")}], threading.Event()
    with Client(link.url) as client, ThreadPoolExecutor(1) as pool:
        drawing = pool.submit(draw, client, method)
        silence(fake_triton, link)
        with pytest.raises(NoServerError, match=LOST):
            drawing.result(30)
        fake_triton.hold.set()
        assert client.generate("a circle", timeout_s=20).mp4 == MP4


@pytest.mark.parametrize("method", ["generate", "stream"])
def test_async_call_raises_when_its_link_falls_silent(fake_triton, link, method):
    fake_triton.events, fake_triton.hold = [{"EVENT": event("step", "x")}], threading.Event()

    async def run() -> bytes:
        async with AsyncClient(link.url) as client:
            drawing = asyncio.create_task(draw_async(client, method))
            await asyncio.to_thread(silence, fake_triton, link)
            with pytest.raises(NoServerError, match=LOST):
                await asyncio.wait_for(drawing, 30)
            fake_triton.hold.set()
            return (await client.generate("a circle", timeout_s=20)).mp4

    assert asyncio.run(run()) == MP4


def test_calls_wait_for_a_server_that_is_silent_and_lives(fake_triton):
    """As it is while a large clip is on its way, or with a Triton that tells no events."""
    fake_triton.hold = threading.Event()
    threading.Timer(4 * ASK_AFTER_S, fake_triton.hold.set).start()

    async def both() -> bytes:
        async with AsyncClient(fake_triton.url) as client:
            return (await client.generate("a circle")).mp4

    with Client(fake_triton.url) as client, ThreadPoolExecutor(1) as pool:
        blocking = pool.submit(draw, client, "generate")
        assert asyncio.run(both()) == MP4
        assert blocking.result(30).mp4 == MP4


def test_a_caller_may_take_its_time_between_events(fake_triton, link):
    fake_triton.events = [{"EVENT": event("step", "x")}] * 3
    with Client(link.url) as client:
        stream = client.stream("a circle")
        next(stream)
        time.sleep(3 * ASK_AFTER_S)
        assert list(stream)[-1].video.mp4 == MP4


def test_status_of_a_silent_link_is_asked_on_a_new_one_the_next_time(link, monkeypatch):
    monkeypatch.setattr("reelserve.client._client.STATUS_TIMEOUT_S", 0.5)
    with Client(link.url) as client:
        assert client.is_ready()
        link.silence()
        assert not client.is_ready()
        assert client.is_ready()
