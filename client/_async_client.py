"""The client for asyncio."""

from __future__ import annotations

import asyncio
import contextlib
import os
from dataclasses import dataclass, field
from typing import Any

import grpc

from reelserve.client._base import STATUS_TIMEOUT_S, BaseClient
from reelserve.client._capabilities import Capabilities, capabilities_call
from reelserve.client._exceptions import ReelserveError, RequestCancelledError
from reelserve.client._link import Link
from reelserve.client._messages import (
    AnswerT,
    UnaryCall,
    model_ready_call,
    server_live_call,
    server_ready_call,
)
from reelserve.client._options import ClipRequest, clip_request, takes_options
from reelserve.client._silence import ANSWER_WITHIN_S, UNANSWERED
from reelserve.client._statistics import StageStatistics, statistics_call
from reelserve.client._stream import AsyncStream
from reelserve.client._video import Video

_used_by: int | None = None
"""Process in which gRPC's asyncio was first used. In a process forked from it every call waits for
a thread that is not there."""


@dataclass(eq=False)
class _Link(Link):
    """The connection of one event loop.

    Args:
        channel: Its gRPC channel.
        closed: Set by `close`.
    """

    closed: asyncio.Event = field(default_factory=asyncio.Event)

    async def close(self) -> None:
        self.closed.set()
        await self.channel.close()


class AsyncClient(BaseClient):
    """`Client` for asyncio; an asynchronous context manager.

    It may be made anywhere, and be used in several event loops, one after the other too: each has
    a connection of its own.
    """

    def _prepare(self) -> None:
        self._links: dict[asyncio.AbstractEventLoop, _Link] = {}
        self._closed = False

    @takes_options(clip_request)
    async def generate(self, request: ClipRequest) -> Video:
        """Draws a clip and waits for it; cancelling the task cancels the request.

        Raises:
            ReelserveError: One of its other subclasses, see there.
        """
        video = None
        async with AsyncStream(self, request, events=False) as stream:
            async for event in stream:
                video = event.video
        return self._clip(video)

    @takes_options(clip_request)
    def stream(self, request: ClipRequest) -> AsyncStream:
        """Draws a clip and tells how far it is; the last event holds it.

        `async for event in client.stream("a red circle"): …`. Leaving the loop, cancelling its
        task or closing the stream cancels the request; errors of the server come with the events.
        """
        return AsyncStream(self, request)

    async def is_ready(self) -> bool:
        """Whether the server answers and serves the model.

        Raises:
            ReelserveError: If the client is closed.
        """
        self._check_open()
        try:
            return await self._ask(server_ready_call()) and await self._ask(
                model_ready_call(self.model)
            )
        except ReelserveError:
            return False

    async def statistics(self) -> dict[str, StageStatistics]:
        """Stage to the counters that Triton keeps of it, over all clients.

        Raises:
            ReelserveError: If the server does not answer.
        """
        return await self._ask(statistics_call())

    async def capabilities(self) -> Capabilities:
        """The served checkpoint with the limits and defaults of its requests.

        Raises:
            ReelserveError: If the server does not answer, or is a Triton without reelserve's
                front end, which does not know them.
        """
        return await self._ask(capabilities_call(self.model))

    async def close(self) -> None:
        """Closes the connections; requests in flight are cancelled."""
        self._closed = True
        running = asyncio.get_running_loop()
        for loop, link in list(self._links.items()):
            if loop is running:
                await link.close()
            elif not loop.is_closed():
                asyncio.run_coroutine_threadsafe(link.close(), loop)
        self._links.clear()

    async def _ask(self, call: UnaryCall[AnswerT]) -> AnswerT:
        link = self._link()
        send = getattr(link.stub, call.method)
        try:
            answer = await send(
                call.message, timeout=STATUS_TIMEOUT_S, metadata=self._connection.metadata
            )
        except grpc.RpcError as error:
            if error.code() is grpc.StatusCode.DEADLINE_EXCEEDED:
                self._drop(link)
            raise self._failure(error) from None
        except asyncio.CancelledError as error:
            raise self._interruption(error) from None
        return self._read(call, answer)

    def _interruption(self, error: asyncio.CancelledError) -> BaseException:
        """What ended a call that was cancelled: its task, or `close`, which gRPC tells alike."""
        task: Any = asyncio.current_task()
        # Python 3.10 cannot tell; there `close` is the likely reason.
        by_task = getattr(task, "cancelling", int)() > 0
        return self._closed_error() if self._closed and not by_task else error

    def _send(self, request: ClipRequest, timeout_s: float, *, events: bool) -> tuple[Any, _Link]:
        link = self._link()
        return self._stream_call(link, request, timeout_s, events), link

    async def _lives(self, link: _Link) -> bool:
        """Whether the server answers on a connection."""
        try:
            await link.stub.ServerLive(
                server_live_call().message,
                timeout=ANSWER_WITHIN_S,
                metadata=self._connection.metadata,
            )
        except grpc.RpcError as error:
            return error.code() not in UNANSWERED
        return True

    def _drop(self, link: _Link) -> None:
        """Uses a connection for no further call; those that are on it go on."""
        for loop in [loop for loop, one in self._links.items() if one is link]:
            del self._links[loop]

    def _link(self) -> _Link:
        """The connection of the running loop."""
        global _used_by
        self._check_open()
        if _used_by not in (None, os.getpid()):
            raise RequestCancelledError(
                f"{self.url}: process {_used_by}, which this one was forked from, has used an "
                "AsyncClient, and gRPC's asyncio does not survive a fork; start processes by "
                "spawn, or use Client"
            )
        _used_by = os.getpid()
        running = asyncio.get_running_loop()
        if running not in self._links:
            for loop in [loop for loop in self._links if loop.is_closed()]:
                del self._links[loop]
            self._links[running] = _Link(self._connection.open(grpc.aio))
        return self._links[running]

    def _is_closed(self) -> bool:
        return self._closed

    async def _pause(self, seconds: float) -> None:
        """Waits between two attempts; closing the client ends it."""
        with contextlib.suppress(asyncio.TimeoutError):
            await asyncio.wait_for(self._link().closed.wait(), seconds)
        self._check_open()

    async def __aenter__(self) -> AsyncClient:
        return self

    async def __aexit__(self, *exception: object) -> None:
        await self.close()
