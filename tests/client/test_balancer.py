"""Clients of several servers, of which some are full, draining, away, silent or elsewhere."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import grpc
import pytest
from tritonclient.grpc import service_pb2

from reelserve.client import (
    AsyncClient,
    Client,
    DeadlineExceededError,
    NoServerError,
    UnavailableError,
    _balancer,
    _retries,
)
from tests.client.conftest import MP4, FakeTriton, event, serving
from tests.client.test_retries import (
    FULL,
    async_generate,
    async_stream,
    every_way,
    generate,
    stream,
)

FULL_FOR_LONG = FULL.replace("0 s", "600 s")
SOON_S = 30
"""Bound on waits that are short."""


@pytest.fixture(autouse=True)
def no_chance(monkeypatch):
    """Waits have no jitter, and of servers with equally many calls the first one is taken."""
    monkeypatch.setattr(_retries.random, "uniform", lambda low, high: 0.0)
    monkeypatch.setattr(_balancer.random, "random", lambda: 0.0)
    monkeypatch.setattr(_balancer, "ASK_AGAIN_S", 0.05)


@pytest.fixture
def two():
    """Two fakes that serve."""
    fakes = FakeTriton(), FakeTriton()
    with serving(fakes[0]), serving(fakes[1]):
        yield fakes


@pytest.fixture
def dead() -> str:
    """An address where nothing listens."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return f"127.0.0.1:{probe.getsockname()[1]}"


@pytest.fixture
def silent():
    """An address that takes connections and never says a word, as a host behind a cut does."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        yield f"127.0.0.1:{listener.getsockname()[1]}"


def urls(*fakes: FakeTriton) -> list[str]:
    return [fake.url for fake in fakes]


def counts(*fakes: FakeTriton) -> list[int]:
    return [len(fake.requests) for fake in fakes]


def wait_until(condition) -> None:
    deadline = time.monotonic() + SOON_S
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_calls_at_once_are_spread_evenly(two):
    for fake in two:
        fake.hold = threading.Event()
    with Client(urls(*two)) as client, ThreadPoolExecutor(8) as pool:
        drawn = [pool.submit(client.generate, "a circle") for _ in range(8)]
        wait_until(lambda: sum(counts(*two)) == 8)
        for fake in two:
            fake.hold.set()
        assert [one.result(SOON_S).mp4 for one in drawn] == [MP4] * 8
    assert counts(*two) == [4, 4]


def test_calls_of_the_async_client_at_once_are_spread_evenly(two):
    for fake in two:
        fake.hold = threading.Event()

    async def draw() -> list[bytes]:
        async with AsyncClient(",".join(urls(*two))) as client:
            drawn = [asyncio.create_task(client.generate("a circle")) for _ in range(8)]
            await asyncio.to_thread(wait_until, lambda: sum(counts(*two)) == 8)
            for fake in two:
                fake.hold.set()
            return [(await one).mp4 for one in drawn]

    assert asyncio.run(draw()) == [MP4] * 8
    assert counts(*two) == [4, 4]


def test_a_call_goes_to_the_server_with_the_fewest(two):
    """Turns would send every second short clip behind the long one."""
    two[0].hold = threading.Event()
    with Client(urls(*two)) as client, ThreadPoolExecutor(1) as pool:
        pool.submit(client.generate, "a long one")
        wait_until(lambda: two[0].requests)
        for _ in range(6):
            client.generate("a short one")
        assert counts(*two) == [1, 6]
        two[0].hold.set()


@every_way
def test_a_dead_address_is_passed_over(fake_triton, dead, draw):
    assert draw([dead, fake_triton.url]) == MP4
    assert draw([fake_triton.url, dead]) == MP4


@every_way
def test_a_silent_address_is_passed_over_while_it_is_asked(fake_triton, silent, draw):
    assert draw([silent, fake_triton.url]) == MP4


@every_way
def test_a_refused_request_goes_to_the_next_server_without_a_retry(two, draw):
    two[0].refusals = [FULL_FOR_LONG]
    assert draw(urls(*two), max_retries=0) == MP4
    assert counts(*two) == [1, 1]


@every_way
def test_a_server_that_takes_no_requests_gets_none(two, draw):
    two[0].taking = False
    assert draw(urls(*two)) == MP4
    assert counts(*two) == [0, 1]


@every_way
def test_the_shortest_wait_is_honoured_when_all_are_full(two, draw):
    two[0].refusals, two[1].refusals = [FULL] * 2, [FULL_FOR_LONG] * 2
    assert draw(urls(*two), max_retries=2, seed=3) == MP4
    assert all(fake.received(n)["SEED"] == 3 for fake in two for n in range(len(fake.requests)))


@every_way
def test_the_shortest_wait_is_told_when_all_are_full_and_no_retry_is_left(two, draw):
    two[0].refusals, two[1].refusals = [FULL.replace("0 s", "7 s")], [FULL_FOR_LONG]
    with pytest.raises(UnavailableError, match=two[0].url) as caught:
        draw(urls(*two))
    assert caught.value.retry_after_s == 7
    assert counts(*two) == [1, 1]


@every_way
def test_call_raises_naming_all_when_nobody_answers(dead, draw):
    other = "localhost:" + dead.rpartition(":")[2]
    with pytest.raises(NoServerError) as caught:
        draw([dead, other])
    assert str(caught.value).startswith(f"{dead}, {other}: none of 2 servers answers: {dead}: ")
    assert f"; {other}: " in str(caught.value)


@every_way
def test_call_raises_naming_the_bound_when_silence_outlasts_its_time(silent, dead, draw):
    with pytest.raises(DeadlineExceededError) as caught:
        draw([silent, dead], timeout_s=0.5)
    assert f"{silent}, {dead}: no server has answered within 0.5 s" in str(caught.value)


@every_way
def test_call_raises_naming_the_bound_of_an_answer_when_nobody_gives_one(
    silent, dead, draw, monkeypatch
):
    for module in (
        "_client.READY_WITHIN_S",
        "_async_client.READY_WITHIN_S",
        "_base.ANSWER_WITHIN_S",
    ):
        monkeypatch.setattr(f"reelserve.client.{module}", 0.5)
    with pytest.raises(NoServerError, match=f"{silent}: no answer within 0.5 s"):
        draw([silent, dead])


def test_a_server_that_comes_back_is_used_again(fake_triton):
    before, again = FakeTriton(), FakeTriton()
    with contextlib.ExitStack() as stack:
        server = stack.enter_context(serving(before))
        client = stack.enter_context(Client(urls(before, fake_triton)))

        def uses(fake: FakeTriton) -> bool:
            assert client.generate("a circle").mp4 == MP4
            return bool(fake.requests)

        wait_until(lambda: uses(before))
        server.stop(grace=None).wait()
        for _ in range(6):
            uses(again)
        stack.enter_context(serving(again, before.url))
        wait_until(lambda: uses(again))


def broken_after(fake: FakeTriton, events: list) -> None:
    """Makes a fake lose its connection in the middle of a clip."""
    fake.events, fake.status, fake.details = events, grpc.StatusCode.UNAVAILABLE, "Socket closed"


STEP = [{"EVENT": event("step", "video_diffusion", step=1, steps=8)}]


@pytest.mark.parametrize("draw", [generate, async_generate, stream, async_stream])
@pytest.mark.parametrize("events", [[], STEP], ids=["silent", "heard"])
def test_a_clip_that_was_lost_is_drawn_elsewhere_for_a_retry(two, draw, events):
    broken_after(two[0], events)
    assert draw(urls(*two), max_retries=1, seed=9) == MP4
    assert two[0].received()["SEED"] == two[1].received()["SEED"] == 9


@pytest.mark.parametrize("draw", [generate, async_generate, stream, async_stream])
def test_a_clip_that_was_lost_is_not_drawn_again_when_no_retry_is_left(two, draw):
    for fake in two:
        broken_after(fake, STEP)
    with pytest.raises(NoServerError, match="Socket closed"):
        draw(urls(*two))
    assert sum(counts(*two)) == 1


def test_a_clip_that_every_server_loses_is_drawn_no_oftener_than_the_retries_say(two):
    for fake in two:
        broken_after(fake, STEP)
    with pytest.raises(NoServerError, match="none of 2 servers"):
        generate(urls(*two), max_retries=5)
    assert counts(*two) == [1, 1]


@pytest.mark.parametrize("kind", ["blocking", "asyncio"])
def test_a_stream_tells_that_it_begins_anew(two, kind):
    broken_after(two[0], STEP)

    async def kinds() -> list[str]:
        async with AsyncClient(urls(*two), max_retries=1) as client:
            return [one.kind async for one in client.stream("a circle")]

    if kind == "asyncio":
        told = asyncio.run(kinds())
    else:
        with Client(urls(*two), max_retries=1) as client:
            told = [one.kind for one in client.stream("a circle")]
    assert told == ["step", "restart", "clip"]


def test_a_stream_that_is_read_late_asks_servers_anew(fake_triton, dead):
    """What was found out when it was made says nothing of now."""
    late = FakeTriton()
    with Client([dead, fake_triton.url.replace("127.0.0.1", "127.0.0.9")]) as client:
        stream = client.stream("a circle")
        with pytest.raises(NoServerError):
            client.generate("a circle")
        with serving(late, dead):
            wait_until(client.is_ready)
            assert list(stream)[-1].video.mp4 == MP4


def test_closing_the_client_ends_the_wait_for_servers(silent, dead):
    client = Client([silent, dead])
    threading.Timer(0.2, client.close).start()
    with pytest.raises(Exception, match="the client is closed"):
        client.generate("a circle")


def test_state_is_asked_of_whoever_answers(fake_triton, dead):
    with Client([dead, fake_triton.url]) as client:
        assert client.is_ready()
        assert client.statistics() == {}
    with Client([dead, dead.replace("127.0.0.1", "localhost")]) as client:
        assert not client.is_ready()


def test_statistics_are_those_of_all_servers(two):
    for number, fake in enumerate(two):
        counters = service_pb2.ModelStatistics(name="denoiser", execution_count=number + 3)
        fake.statistics = [counters]
    two[1].taking = False

    async def asked() -> int:
        async with AsyncClient(urls(*two)) as client:
            return (await client.statistics())["denoiser"].executions

    with Client(urls(*two)) as client:
        assert client.statistics()["denoiser"].executions == asyncio.run(asked()) == 7
