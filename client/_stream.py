"""Streams of events, from the blocking and the asynchronous client."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Awaitable, Iterator
from typing import Any, Generic, Protocol, TypeVar

import grpc

from reelserve.client import _silence
from reelserve.client._events import Event, read_event
from reelserve.client._exceptions import ReelserveError, RequestCancelledError
from reelserve.client._options import ClipRequest
from reelserve.client._retries import Retries
from reelserve.client._silence import Watch, lost

PauseT = TypeVar("PauseT", covariant=True)
LinkT = TypeVar("LinkT")


class Sender(Protocol[PauseT, LinkT]):
    """What a stream asks of its client."""

    url: str

    def _retries(self, request: ClipRequest) -> Retries: ...

    def _send(self, request: ClipRequest, timeout_s: float, *, events: bool) -> tuple[Any, LinkT]:
        """Sends a request; gives the gRPC call and the connection that it is on."""

    def _lives(self, link: LinkT) -> Any:
        """Whether the server answers on a connection."""

    def _drop(self, link: LinkT) -> None:
        """Uses a connection for no further call."""

    def _failure(self, error: grpc.RpcError) -> ReelserveError:
        """Turns an error of gRPC into one of this client."""

    def _pause(self, seconds: float) -> PauseT:
        """Waits before the request is sent again."""


class AsyncSender(Sender[Awaitable[None], LinkT], Protocol[LinkT]):
    """What a stream for asyncio asks besides."""

    def _interruption(self, error: asyncio.CancelledError) -> BaseException:
        """What ended a call that was cancelled."""


class _Call(Generic[PauseT, LinkT]):
    """A stream's gRPC call; closing it cancels the request on the server.

    Args:
        client: Sends the request.
        request: What is asked for.
        events: Whether the caller sees events on the way, or waits for the clip alone.
    """

    _ended = True
    """Until the request has been sent."""

    def __init__(
        self, client: Sender[PauseT, LinkT], request: ClipRequest, *, events: bool = True
    ) -> None:
        self._client, self._request, self._events = client, request, events
        self._retries, self._process = client._retries(request), os.getpid()
        self._heard = False
        self._begin()

    def _begin(self) -> None:
        timeout_s = self._retries.remaining_s()
        self._call, self._link = self._client._send(self._request, timeout_s, events=self._events)
        self._listen()
        # Last, so that whoever is interrupted before has nothing to end.
        self._ended = False

    def _listen(self) -> None:
        """Gets ready to wait for messages of the call."""

    def _read(self, response: Any) -> Event | None:
        event = read_event(response, self._client.url)
        self._heard = True
        return event

    def _next_wait_s(self, error: grpc.RpcError | ReelserveError) -> float:
        """Seconds until the request is sent again; raises if it is not."""
        failure = error if isinstance(error, ReelserveError) else self._client._failure(error)
        if self._heard and self._events:
            # Whoever sees events would see them begin anew.
            raise failure from None
        return self._retries.next_wait_s(failure)

    def _send_again(self) -> None:
        # It may have been closed during the wait.
        if not self._ended:
            self._call.cancel()
            self._begin()

    def _cancel(self) -> None:
        # A call of the process that this one was forked from is not ours to end.
        if not self._ended and self._process == os.getpid():
            self._ended = True
            self._call.cancel()

    def _check_process(self) -> None:
        if self._process != os.getpid():
            raise RequestCancelledError(
                f"{self._client.url}: the stream belongs to process {self._process}, which this "
                "one was forked from; begin a new one here"
            )

    def __del__(self) -> None:
        self._cancel()


class Stream(_Call[None, Any]):
    """Events of a clip on its way, an iterable, an iterator and a context manager.

    Leaving a loop over it, its block, or the last reference to it before the last event cancels
    the request on the server. `next(stream)` takes a single event.
    """

    def __iter__(self) -> Iterator[Event]:
        return _Loop(self)

    def __next__(self) -> Event:
        """The next event.

        Raises:
            ReelserveError: One of its subclasses, see there.
        """
        self._check_process()
        try:
            return self._next()
        except BaseException:
            self._cancel()
            raise

    def _listen(self) -> None:
        client, link = self._client, self._link
        self._watch = Watch(self._call, lambda: client._lives(link))

    def _next(self) -> Event:
        while not self._ended:
            try:
                event = self._read(self._watch.next())
            except (grpc.RpcError, ReelserveError) as error:
                if self._watch.lost and not self._ended:
                    self._client._drop(self._link)
                    raise lost(self._client.url) from None
                self._client._pause(self._next_wait_s(error))
                self._send_again()
            else:
                if event is not None:
                    return event
        raise StopIteration

    def _send_again(self) -> None:
        self._watch.end()
        super()._send_again()

    def _cancel(self) -> None:
        if not self._ended:
            self._watch.end()
        super()._cancel()

    def close(self) -> None:
        """Cancels the request if it has not ended."""
        self._cancel()

    def __enter__(self) -> Stream:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()


class _Loop:
    """A `for` loop over a stream: Python lets go of it when the loop is left."""

    def __init__(self, stream: Stream) -> None:
        self._stream = stream

    def __iter__(self) -> Iterator[Event]:
        return self

    def __next__(self) -> Event:
        return next(self._stream)

    def __del__(self) -> None:
        self._stream.close()


class AsyncStream(_Call[Awaitable[None], Any]):
    """`Stream` for asyncio: `async for`, `async with`, and `anext(stream)` for a single event."""

    _client: AsyncSender[Any]

    def __aiter__(self) -> AsyncIterator[Event]:
        return _AsyncLoop(self)

    async def __anext__(self) -> Event:
        """As `Stream.__next__`; cancelling the task cancels the request."""
        self._check_process()
        try:
            return await self._next()
        except asyncio.CancelledError as error:
            self._cancel()
            raise self._client._interruption(error) from None
        except BaseException:
            self._cancel()
            raise

    async def _next(self) -> Event:
        while not self._ended:
            try:
                response = await self._message()
                if response is grpc.aio.EOF:
                    break
                event = self._read(response)
            except (grpc.RpcError, ReelserveError) as error:
                await self._client._pause(self._next_wait_s(error))
                self._send_again()
            else:
                if event is not None:
                    return event
        raise StopAsyncIteration

    async def _message(self) -> Any:
        """The next message of the call.

        Raises:
            NoServerError: If the connection fell silent.
        """
        reading = asyncio.ensure_future(self._call.read())
        try:
            while not (await asyncio.wait({reading}, timeout=_silence.ASK_AFTER_S))[0]:
                if not await self._client._lives(self._link) and not reading.done():
                    self._client._drop(self._link)
                    raise lost(self._client.url)
        except BaseException:
            reading.cancel()
            raise
        return reading.result()

    async def aclose(self) -> None:
        """Cancels the request if it has not ended."""
        self._cancel()

    async def __aenter__(self) -> AsyncStream:
        return self

    async def __aexit__(self, *exception: object) -> None:
        await self.aclose()


class _AsyncLoop:
    """An `async for` loop over a stream."""

    def __init__(self, stream: AsyncStream) -> None:
        self._stream = stream

    def __aiter__(self) -> AsyncIterator[Event]:
        return self

    async def __anext__(self) -> Event:
        return await self._stream.__anext__()

    def __del__(self) -> None:
        self._stream._cancel()
