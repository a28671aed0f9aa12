"""Raw calls from very many callers at once, in one process."""

from __future__ import annotations

import asyncio
import contextlib
import multiprocessing
import random
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Sequence
from concurrent.futures import ProcessPoolExecutor
from typing import Any, TypeVar

import grpc

from reelserve.client._channel import channel_arguments
from reelserve.pipeline.checkpoint import CheckpointSpec
from reelserve.pipeline.contract import PROGRESS
from reelserve.tools.faults.fuzzing import GONE, SERVICE
from reelserve.tools.faults.malformed import MUTATIONS, STREAM, UNARY
from reelserve.tools.faults.well_formed import well_formed

CONNECTIONS = 8
INVALID = ("input missing", "wrong dtype", "value out of range", "bad text", "unknown model")
VARIANTS = 50
"""Different requests of each kind."""
STEPS = 4
"""Denoising steps of a valid request: it is in the denoiser for a while."""
NO_SERVER = "no server"

ResultT = TypeVar("ResultT")
Send = Callable[[int], Awaitable[str]]
"""Sends a call by its number; gives its status."""


def in_own_process(work: Callable[..., Coroutine[Any, Any, ResultT]], *arguments: Any) -> ResultT:
    """Runs a coroutine function in a process of its own, and gives its result.

    What gRPC's asyncio has left of cancelled calls would disturb the next event loop of a process.

    Args:
        work: Function at a module's top level.
        arguments: Arguments of `work`; they are pickled.
    """
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        return pool.submit(_run, work, arguments).result()


def _run(work: Callable[..., Coroutine[Any, Any, ResultT]], arguments: Sequence[Any]) -> ResultT:
    return asyncio.run(work(*arguments))


@contextlib.asynccontextmanager
async def connections(url: str) -> AsyncIterator[list[grpc.aio.Channel]]:
    """Several connections to the server at `host:port`."""
    options = channel_arguments(url)
    async with contextlib.AsyncExitStack() as stack:
        yield [
            await stack.enter_async_context(grpc.aio.insecure_channel(url, options=options))
            for _ in range(CONNECTIONS)
        ]


def unary(channels: Sequence[grpc.aio.Channel]) -> list[Any]:
    """`ModelInfer` of each connection, over bytes."""
    return [channel.unary_unary(SERVICE + UNARY) for channel in channels]


def streaming(channels: Sequence[grpc.aio.Channel]) -> list[Any]:
    """`ModelStreamInfer` of each connection with one request, over bytes."""
    return [channel.unary_stream(SERVICE + STREAM) for channel in channels]


async def send_all(send: Send, calls: int, callers: int) -> Counter[str]:
    """Sends calls, so many at a time, and counts their statuses."""
    numbers, statuses = iter(range(calls)), Counter[str]()

    async def call() -> None:
        for number in numbers:
            statuses[await send(number)] += 1

    await asyncio.gather(*(call() for _ in range(callers)))
    return statuses


def status_of(error: grpc.aio.AioRpcError) -> str:
    """Name of a call's status; a server that is gone has one of its own."""
    details = error.details() or ""
    gone = error.code() is grpc.StatusCode.UNAVAILABLE and GONE.search(details)
    return NO_SERVER if gone else str(error.code().name)


def valid_requests(spec: CheckpointSpec, rng: random.Random) -> list[bytes]:
    """Requests that take a few steps, every other one with progress where it is streamed."""
    requests = []
    for number in range(VARIANTS):
        request = well_formed(spec, rng)
        names = [tensor.name for tensor in request.inputs]
        content = STEPS.to_bytes(4, "little")
        request.raw_input_contents[names.index("NUM_INFERENCE_STEPS")] = content
        request.parameters[PROGRESS].bool_param = bool(number % 2)
        requests.append(request.SerializeToString())
    return requests


def invalid_requests(spec: CheckpointSpec, rng: random.Random) -> list[bytes]:
    """Requests that are refused for what is in them; by chance a few are valid."""
    requests = []
    for number in range(VARIANTS):
        request = well_formed(spec, rng)
        MUTATIONS[INVALID[number % len(INVALID)]](request, rng)
        requests.append(request.SerializeToString())
    return requests
