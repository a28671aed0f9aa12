"""Clients that are closed, and event loops that come and go."""

from __future__ import annotations

import asyncio
import gc
import os
import select
import signal
import subprocess
import sys
import threading
import time

import pytest

from reelserve.client import AsyncClient, Client, ReelserveError, RequestCancelledError
from tests.client.conftest import MP4, event

CALLS = ("generate", "stream", "is_ready", "statistics", "capabilities")


def arguments(method: str) -> tuple[str, ...]:
    return ("a circle",) if method in ("generate", "stream") else ()


@pytest.mark.parametrize("method", CALLS)
def test_every_call_raises_when_the_client_is_closed(fake_triton, method):
    client = Client(fake_triton.url)
    client.close()
    client.close()
    with pytest.raises(ReelserveError, match="the client is closed; make a new one"):
        list(getattr(client, method)(*arguments(method)))
    assert not fake_triton.requests


@pytest.mark.parametrize("method", CALLS)
def test_every_call_raises_when_the_async_client_is_closed(fake_triton, method):
    async def call() -> None:
        client = AsyncClient(fake_triton.url)
        await client.is_ready()
        await client.close()
        await client.close()
        answer = getattr(client, method)(*arguments(method))
        await (answer.__anext__() if method == "stream" else answer)

    with pytest.raises(ReelserveError, match="the client is closed; make a new one"):
        asyncio.run(call())
    assert not fake_triton.requests


def test_a_closed_client_does_not_end_the_process():
    """A stream that starts on a closed channel of gRPC is a segmentation fault."""
    program = (
        "from reelserve.client import Client, ReelserveError\n"
        "client = Client('127.0.0.1:9')\nclient.close()\n"
        "try:\n    client.stream('a')\nexcept ReelserveError as error:\n    print(error)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert (done.returncode, "the client is closed" in done.stdout) == (0, True)


def test_streams_raise_when_the_client_is_closed_by_another_thread(fake_triton):
    client, ends = Client(fake_triton.url), []

    def start() -> None:
        try:
            while True:
                client.stream("a circle").close()
        except ReelserveError as error:
            ends.append(type(error))

    threads = [threading.Thread(target=start) for _ in range(4)]
    for thread in threads:
        thread.start()
    client.close()
    for thread in threads:
        thread.join()
    assert ends == [RequestCancelledError] * 4


@pytest.mark.parametrize("method", ["generate", "stream"])
def test_async_call_in_flight_raises_when_the_client_is_closed(fake_triton, method):
    fake_triton.hold = threading.Event()

    async def draw(client: AsyncClient) -> None:
        if method == "generate":
            await client.generate("a circle")
        async for _ in client.stream("a circle"):
            pass

    async def close_meanwhile() -> None:
        client = AsyncClient(fake_triton.url)
        task = asyncio.create_task(draw(client))
        while not fake_triton.requests:
            await asyncio.sleep(0.01)
        await client.close()
        await task

    with pytest.raises(RequestCancelledError, match="the client is closed"):
        asyncio.run(close_meanwhile())


def test_async_client_made_outside_a_loop_serves_one_after_the_other(fake_triton):
    fake_triton.events = [{"EVENT": event("stage", "text_encoder")}]
    client = AsyncClient(fake_triton.url)

    async def draw() -> list[bytes]:
        streamed = [one async for one in client.stream("a circle")][-1].video.mp4
        return [(await client.generate("a circle")).mp4, streamed]

    for _ in range(2):
        assert asyncio.run(draw()) == [MP4, MP4]
    asyncio.run(client.close())
    with pytest.raises(ReelserveError, match="the client is closed"):
        asyncio.run(draw())


def test_async_client_serves_two_loops_at_once(fake_triton):
    client, answers = AsyncClient(fake_triton.url), []

    async def draw() -> None:
        for _ in range(5):
            answers.append((await client.generate("a circle")).mp4)

    threads = [threading.Thread(target=asyncio.run, args=(draw(),)) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert answers == [MP4] * 10
    asyncio.run(client.close())


def test_async_stream_that_outlives_its_loop_is_forgotten_quietly(fake_triton, capfd):
    fake_triton.events, fake_triton.hold = (
        [{"EVENT": event("stage", "text_encoder")}],
        threading.Event(),
    )
    client, kept = AsyncClient(fake_triton.url), []

    async def leave() -> None:
        kept.append(client.stream("a circle"))
        await kept[0].__anext__()

    asyncio.run(leave())
    kept.clear()
    gc.collect()
    assert fake_triton.cancelled.wait(10)
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize("method", ["generate", "stream"])
def test_call_in_flight_raises_when_another_thread_closes_the_client(fake_triton, method):
    fake_triton.hold, ends = threading.Event(), []
    client = Client(fake_triton.url)

    def draw() -> None:
        try:
            list(getattr(client, method)("a circle"))
        except ReelserveError as error:
            ends.append(str(error))

    threads = [threading.Thread(target=draw) for _ in range(3)]
    for thread in threads:
        thread.start()
    while len(fake_triton.requests) < 3:
        time.sleep(0.01)
    client.close()
    for thread in threads:
        thread.join()
    assert ends == [f"{fake_triton.url}: the client is closed; make a new one"] * 3


def in_child(work) -> str:
    """What a function gives in a process that is forked from this one."""
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            told = str(work())
        except BaseException as error:
            told = f"{type(error).__name__}: {error}"
        os.write(write, told.encode())
        os._exit(0)
    os.close(write)
    try:
        assert select.select([read], [], [], 30)[0], "the child hangs"
        return os.read(read, 4096).decode()
    finally:
        os.close(read)
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)


FORKS = """
import asyncio, sys
from reelserve.client import AsyncClient, Client
from tests.client.test_lifetime import in_child
url = sys.argv[1]
client, unused = Client(url), AsyncClient(url)
drawn = lambda: client.generate("a", timeout_s=20).info.seed
async_drawn = lambda: asyncio.run(unused.generate("a", timeout_s=20)).info.seed
print(in_child(drawn), drawn())
print(*(in_child(drawn) for _ in range(4)))
stream = client.stream("a")
next(stream)
print(in_child(lambda: next(stream)))
print(*(event.kind for event in stream))
with client._starting:
    print(in_child(drawn))
print(in_child(async_drawn), async_drawn())
print(in_child(async_drawn))
print(in_child(drawn), drawn())
client.close()
print(in_child(drawn))
"""
"""A process of its own: gRPC's asyncio must not have been used before."""


def test_clients_survive_a_fork_or_say_why_not(fake_triton):
    fake_triton.events = [{"EVENT": event("stage", "text_encoder")}]
    command = [sys.executable, "-c", FORKS, fake_triton.url]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    lines = done.stdout.splitlines()

    assert lines[:2] == ["7 7", "7 7 7 7"], done
    assert "the stream belongs to process" in lines[2] and "begin a new one here" in lines[2]
    assert lines[3:6] == ["clip", "7", "7 7"]
    assert "RequestCancelledError" in lines[6] and "does not survive a fork" in lines[6]
    assert lines[7] == "7 7" and "the client is closed" in lines[8]


def test_async_client_has_whatever_the_client_has():
    def public(kind: type) -> set[str]:
        return {name for name in dir(kind) if not name.startswith("_")}

    assert public(AsyncClient) == public(Client)
