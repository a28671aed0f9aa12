"""Refused requests that are sent again, and failed ones that are not."""

from __future__ import annotations

import asyncio
import random
import threading

import grpc
import pytest

from reelserve.client import (
    AsyncClient,
    Client,
    DeadlineExceededError,
    InternalError,
    InvalidArgumentError,
    NoServerError,
    NotReadyError,
    RequestCancelledError,
    UnavailableError,
    _retries,
)
from reelserve.client._exceptions import error_from_status
from reelserve.client._retries import MAX_BACKOFF_S, Retries
from tests.client.conftest import MP4, event

FULL = "12 requests are in flight, as many as the limit; retry after 0 s"
FULL_FOR_LONG = FULL.replace("0 s", "600 s")
UNAVAILABLE = grpc.StatusCode.UNAVAILABLE
NEVER_SENT_AGAIN = [
    (UNAVAILABLE, "the server is shutting down", UnavailableError),
    (UNAVAILABLE, "video_diffusion: 24 requests are in flight: try again later", UnavailableError),
    (UNAVAILABLE, "failed to connect to all addresses", NoServerError),
    (UNAVAILABLE, "Socket closed", NoServerError),
    (grpc.StatusCode.DEADLINE_EXCEEDED, "the deadline leaves 0.1 s", DeadlineExceededError),
    (grpc.StatusCode.NOT_FOUND, "unknown model", NotReadyError),
    (grpc.StatusCode.RESOURCE_EXHAUSTED, FULL, UnavailableError),
    (grpc.StatusCode.INTERNAL, FULL, InternalError),
]


def generate(url: str, **options) -> bytes:
    with Client(url) as client:
        return client.generate("a circle", **options).mp4


def stream(url: str, **options) -> bytes:
    with Client(url) as client:
        return list(client.stream("a circle", **options))[-1].video.mp4


def async_generate(url: str, **options) -> bytes:
    async def one() -> bytes:
        async with AsyncClient(url) as client:
            return (await client.generate("a circle", **options)).mp4

    return asyncio.run(one())


def async_stream(url: str, **options) -> bytes:
    async def one() -> bytes:
        async with AsyncClient(url) as client:
            return [one async for one in client.stream("a circle", **options)][-1].video.mp4

    return asyncio.run(one())


every_way = pytest.mark.parametrize("draw", [generate, stream, async_generate, async_stream])


@pytest.fixture(autouse=True)
def jitter(monkeypatch) -> list[float]:
    """The bounds that jitter was drawn from; it is 0 always."""
    bounds: list[float] = []

    def uniform(low: float, high: float) -> float:
        assert low == 0
        bounds.append(high)
        return 0.0

    monkeypatch.setattr(_retries.random, "uniform", uniform)
    return bounds


@every_way
def test_a_refused_request_is_sent_again_until_it_is_answered(fake_triton, draw, jitter):
    fake_triton.refusals = [FULL] * 3
    assert draw(fake_triton.url, seed=5, max_retries=3) == MP4
    assert [fake_triton.received(n)["SEED"] for n in range(len(fake_triton.requests))] == [5] * 4
    assert jitter == [0.5, 1.0, 2.0]


@every_way
def test_the_last_refusal_is_raised_when_no_retry_is_left(fake_triton, draw):
    fake_triton.refusals = [FULL] * 3
    with pytest.raises(UnavailableError, match="retry after 0 s") as caught:
        draw(fake_triton.url, max_retries=2)
    assert caught.value.retry_after_s == 0
    assert len(fake_triton.requests) == 3


@every_way
def test_nothing_is_sent_again_when_it_was_not_asked_for(fake_triton, draw):
    fake_triton.refusals = [FULL]
    with pytest.raises(UnavailableError):
        draw(fake_triton.url)
    assert len(fake_triton.requests) == 1


@every_way
def test_a_refusal_is_raised_at_once_when_the_deadline_comes_first(fake_triton, draw):
    fake_triton.refusals = [FULL_FOR_LONG]
    with pytest.raises(UnavailableError) as caught:
        draw(fake_triton.url, max_retries=5, timeout_s=599)
    assert caught.value.retry_after_s == 600
    assert len(fake_triton.requests) == 1


@every_way
@pytest.mark.parametrize(("status", "details", "kind"), NEVER_SENT_AGAIN)
def test_what_may_have_been_accepted_is_not_sent_again(fake_triton, draw, status, details, kind):
    fake_triton.status, fake_triton.details = status, details
    with pytest.raises(kind) as caught:
        draw(fake_triton.url, max_retries=5, seed=1)
    assert getattr(caught.value, "retry_after_s", None) is None
    assert len(fake_triton.requests) == 1


@pytest.mark.parametrize("draw", [stream, async_stream])
def test_a_stream_is_not_sent_again_when_an_event_has_come(fake_triton, draw):
    fake_triton.events = [{"EVENT": event("stage", "text_encoder")}]
    fake_triton.status, fake_triton.details = UNAVAILABLE, FULL
    with pytest.raises(UnavailableError):
        draw(fake_triton.url, max_retries=5)
    assert len(fake_triton.requests) == 1


def test_the_server_is_told_what_the_earlier_attempts_have_left_of_the_time(fake_triton):
    fake_triton.refusals = [FULL]
    generate(fake_triton.url, max_retries=1, timeout_s=7)
    first, second = (one.parameters["timeout"].int64_param for one in fake_triton.requests)
    assert first == 7_000_000 and 0 < second < first


def test_the_clients_own_number_holds_unless_the_call_says_another(fake_triton):
    fake_triton.refusals = [FULL] * 2
    with Client(fake_triton.url, max_retries=1) as client:
        with pytest.raises(UnavailableError):
            client.generate("a circle", max_retries=0)
        assert client.generate("a circle", max_retries=None).mp4 == MP4


@pytest.mark.parametrize("number", [-1, 1.5, True, "2"])
def test_generate_raises_before_sending_when_max_retries_is_wrong(fake_triton, number):
    with pytest.raises(InvalidArgumentError, match=r"max_retries is .*at least 0"):
        generate(fake_triton.url, max_retries=number)
    assert not fake_triton.requests


@pytest.mark.parametrize("method", ["generate", "stream"])
def test_closing_the_client_ends_the_wait(fake_triton, method):
    fake_triton.refusals = [FULL.replace("0 s", "300 s")]
    client = Client(fake_triton.url)
    closer = threading.Timer(0.2, client.close)
    closer.start()
    with pytest.raises(RequestCancelledError, match="the client is closed"):
        list(getattr(client, method)("a circle", max_retries=5))
    closer.join()
    assert len(fake_triton.requests) == 1


def test_closing_the_async_client_ends_the_wait(fake_triton):
    fake_triton.refusals = [FULL.replace("0 s", "300 s")]

    async def one() -> None:
        client = AsyncClient(fake_triton.url)
        asyncio.get_running_loop().call_later(0.2, lambda: asyncio.create_task(client.close()))
        await client.generate("a circle", max_retries=5)

    with pytest.raises(RequestCancelledError, match="the client is closed"):
        asyncio.run(one())
    assert len(fake_triton.requests) == 1


def test_waits_stay_finite_after_thousands_of_retries():
    retries, refusal = Retries(5000, 1e9), UnavailableError("full")
    refusal.retry_after_s = 0.0
    assert all(retries.next_wait_s(refusal) <= MAX_BACKOFF_S for _ in range(5000))


def test_a_stream_that_is_closed_during_the_wait_sends_nothing_more(fake_triton):
    fake_triton.refusals = [FULL]
    with Client(fake_triton.url) as client:
        stream = client.stream("a circle", max_retries=5)
        client._pause = lambda seconds: stream.close()
        assert list(stream) == []
    assert len(fake_triton.requests) == 1


def test_waits_grow_to_a_bound_on_top_of_what_the_server_asks_for(monkeypatch):
    monkeypatch.setattr(random, "uniform", lambda low, high: high)
    error = error_from_status(UNAVAILABLE, FULL.replace("0 s", "3 s"), "host:1")
    retries = Retries(6, timeout_s=600)
    waits = [retries.next_wait_s(error) for _ in range(6)]
    assert waits == [3 + backoff for backoff in (0.5, 1, 2, 4, 8, 8)]
    with pytest.raises(UnavailableError):
        retries.next_wait_s(error)
