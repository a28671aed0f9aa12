"""The client for asyncio."""

from __future__ import annotations

import asyncio
import contextlib
import os
from typing import Any

import grpc

from reelserve.client._addresses import MAX_ADDRESSES, Address
from reelserve.client._balancer import ANSWER_WITHIN_S as READY_WITHIN_S
from reelserve.client._balancer import Balancer, Endpoint, Round
from reelserve.client._base import STATUS_TIMEOUT_S, BaseClient
from reelserve.client._capabilities import Capabilities, capabilities_call
from reelserve.client._channel import Connection
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
from reelserve.client._retries import Retries
from reelserve.client._silence import ANSWER_WITHIN_S, UNANSWERED
from reelserve.client._statistics import StageStatistics, statistics_call, summed
from reelserve.client._stream import AsyncStream
from reelserve.client._video import Video

_used_by: int | None = None
"""Process in which gRPC's asyncio was first used. In a process forked from it every call waits for
a thread that is not there."""


class _Loop:
    """What one event loop has of a client: connections of its own.

    Args:
        connection: Where the servers are.
    """

    def __init__(self, connection: Connection) -> None:
        self._loop, self._connection = asyncio.get_running_loop(), connection
        self.closed, self.changed = asyncio.Event(), asyncio.Event()
        self.asking: set[asyncio.Task[None]] = set()
        """Kept, because asyncio itself lets go of tasks that run."""
        self.balancer = Balancer(connection, self._open, self._wake)

    async def close(self) -> None:
        """Ends all calls."""
        self.closed.set()
        for task in self.asking:
            task.cancel()
        for link in self.balancer.close():
            await link.channel.close()

    def _open(self, address: Address) -> Link:
        return Link(address, self._connection.open(grpc.aio, address))

    def _wake(self) -> None:
        """From any thread: names are looked up in one."""
        with contextlib.suppress(RuntimeError):
            # Where the loop is closed nobody waits.
            self._loop.call_soon_threadsafe(self.changed.set)


class AsyncClient(BaseClient):
    """`Client` for asyncio; an asynchronous context manager.

    It may be made anywhere, and be used in several event loops, one after the other too: each has
    connections of its own.
    """

    def _prepare(self) -> None:
        self._loops: dict[asyncio.AbstractEventLoop, _Loop] = {}
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
        """Stage to the counters that Triton keeps of it, over all clients and servers.

        Raises:
            ReelserveError: If the server does not answer.
        """
        return summed(await self._ask_servers(statistics_call()))

    async def capabilities(self) -> Capabilities:
        """The served checkpoint: limits and defaults of its requests, and what it can draw.

        Raises:
            ReelserveError: If the server does not answer, or is a Triton without reelserve's
                front end, which does not know them.
        """
        return await self._ask(capabilities_call(self.model))

    async def close(self) -> None:
        """Closes the connections; requests in flight are cancelled."""
        self._closed = True
        running = asyncio.get_running_loop()
        for loop, own in list(self._loops.items()):
            if loop is running:
                await own.close()
            elif not loop.is_closed():
                asyncio.run_coroutine_threadsafe(own.close(), loop)
        self._loops.clear()

    async def _ask(self, call: UnaryCall[AnswerT]) -> AnswerT:
        """The answer of any server."""
        return (await self._ask_servers(call, most=1))[0]

    async def _ask_servers(
        self, call: UnaryCall[AnswerT], most: int = MAX_ADDRESSES
    ) -> list[AnswerT]:
        """Answers of servers, at least one."""
        one, retries, answers = Round(), Retries(0, STATUS_TIMEOUT_S), list[AnswerT]()
        while len(answers) < most and (link := await self._choose(one, retries)) is not None:
            send = getattr(link.stub, call.method)
            try:
                answer = await send(
                    call.message, timeout=STATUS_TIMEOUT_S, metadata=self._connection.metadata
                )
            except grpc.RpcError as error:
                self._pass_over(link, one, error)
            except asyncio.CancelledError as error:
                raise self._interruption(error) from None
            else:
                answers.append(self._read(call, answer, link.address))
                one.answered.add(link.address.target)
            finally:
                self._forget(link)
        if not answers:
            raise self._verdict(one)
        return answers

    def _interruption(self, error: asyncio.CancelledError) -> BaseException:
        """What ended a call that was cancelled: its task, or `close`, which gRPC tells alike."""
        task: Any = asyncio.current_task()
        # Python 3.10 cannot tell; there `close` is the likely reason.
        by_task = getattr(task, "cancelling", int)() > 0
        return self._closed_error() if self._closed and not by_task else error

    def _find(self, one: Round) -> Link | float | None:
        own = self._own()
        for server in own.balancer.to_ask(one):
            task = asyncio.create_task(self._ask_whether_ready(own.balancer, server))
            own.asking.add(task)
            task.add_done_callback(own.asking.discard)
        return own.balancer.choose(one)

    async def _choose(self, one: Round, retries: Retries) -> Link | None:
        retries.remaining_s()
        while True:
            own = self._own()
            own.changed.clear()
            found = self._find(one)
            if found is None or isinstance(found, Link):
                return found
            left_s = retries.remaining_s()
            if not left_s:
                raise own.balancer.late(retries.timeout_s)
            with contextlib.suppress(asyncio.TimeoutError):
                await asyncio.wait_for(own.changed.wait(), min(found, left_s))

    async def _ask_whether_ready(self, balancer: Balancer, server: Endpoint) -> None:
        message, metadata = server_ready_call().message, self._connection.metadata
        ask = server.link.stub.ServerReady
        try:
            answer = await ask(message, timeout=READY_WITHIN_S, metadata=metadata)
        except asyncio.CancelledError:
            balancer.unasked(server)
            raise
        except grpc.RpcError as error:
            self._unanswered(balancer, server, error)
        else:
            balancer.answered(server, bool(answer.ready))

    def _send(self, link: Link, request: ClipRequest, timeout_s: float, *, events: bool) -> Any:
        balancer, call = self._own().balancer, self._stream_call(link, request, timeout_s, events)
        # Not by way of the running loop: it may be gone before the stream is.
        call.add_done_callback(lambda _: balancer.ended(link))
        return call

    def _forget(self, link: Link) -> None:
        if (own := self._running()) is not None:
            own.balancer.ended(link)

    def _running(self) -> _Loop | None:
        """What the running loop has, if anything: `close` takes it away."""
        return self._loops.get(asyncio.get_running_loop())

    async def _lives(self, link: Link) -> bool:
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

    def _drop(self, link: Link) -> None:
        """Uses a connection for no further call; those that are on it go on."""
        if (own := self._running()) is not None:
            own.balancer.renew(link)

    def _heard(self, link: Link) -> None:
        if (own := self._running()) is not None:
            own.balancer.heard(link)

    def _failed(self, link: Link, failure: ReelserveError) -> None:
        if (own := self._running()) is not None:
            own.balancer.failed(link, failure)

    def _verdict(self, one: Round) -> ReelserveError:
        return self._own().balancer.verdict(one)

    def _own(self) -> _Loop:
        """What the running loop has."""
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
        if running not in self._loops:
            for loop in [loop for loop in self._loops if loop.is_closed()]:
                del self._loops[loop]
            self._loops[running] = _Loop(self._connection)
        return self._loops[running]

    def _is_closed(self) -> bool:
        return self._closed

    async def _pause(self, seconds: float) -> None:
        """Waits between two attempts; closing the client ends it."""
        with contextlib.suppress(asyncio.TimeoutError):
            await asyncio.wait_for(self._own().closed.wait(), seconds)
        self._check_open()

    async def __aenter__(self) -> AsyncClient:
        return self

    async def __aexit__(self, *exception: object) -> None:
        await self.close()
