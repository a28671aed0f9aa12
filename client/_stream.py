"""Streams of events, from the blocking and the asynchronous client."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import AsyncIterator, Awaitable, Iterator
from typing import Any, Generic, Protocol, TypeVar

import grpc

from reelserve.client import _silence
from reelserve.client._addresses import Address
from reelserve.client._balancer import Round
from reelserve.client._events import Event, read_event
from reelserve.client._exceptions import (
    NoServerError,
    ReelserveError,
    RequestCancelledError,
    UnavailableError,
)
from reelserve.client._link import Link
from reelserve.client._options import ClipRequest
from reelserve.client._retries import Retries
from reelserve.client._silence import Watch, lost
from reelserve.pipeline.contract import ENSEMBLE_STAGES

PauseT = TypeVar("PauseT", covariant=True)
FoundT = TypeVar("FoundT", covariant=True)


class Sender(Protocol[PauseT, FoundT]):
    """What a stream asks of its client."""

    url: str
    several: bool

    def _retries(self, request: ClipRequest) -> Retries: ...

    def _find(self, one: Round) -> Link | float | None:
        """The connection for a request, as `Balancer.choose`; asks servers where needed."""

    def _choose(self, one: Round, retries: Retries) -> FoundT:
        """The same, after waiting for servers that were asked; None if nobody is left to try."""

    def _verdict(self, one: Round) -> ReelserveError:
        """Why no server has taken a request."""

    def _send(self, link: Link, request: ClipRequest, timeout_s: float, *, events: bool) -> Any:
        """Sends a request on a connection that was found; gives the gRPC call."""

    def _forget(self, link: Link) -> None:
        """Sends nothing on a connection that was found."""

    def _lives(self, link: Link) -> Any:
        """Whether the server answers on a connection."""

    def _drop(self, link: Link) -> None:
        """Uses a connection for no further call."""

    def _heard(self, link: Link) -> None:
        """Something came on a connection."""

    def _failed(self, link: Link, failure: ReelserveError) -> None:
        """A call on a connection has failed."""

    def _failure(self, error: grpc.RpcError, address: Address) -> ReelserveError:
        """Turns an error of gRPC into one of this client."""

    def _pause(self, seconds: float) -> PauseT:
        """Waits before the request is sent again."""


class AsyncSender(Sender[Awaitable[None], Awaitable[Link | None]], Protocol):
    """What a stream for asyncio asks besides."""

    def _interruption(self, error: asyncio.CancelledError) -> BaseException:
        """What ended a call that was cancelled."""


class _Call(Generic[PauseT, FoundT]):
    """A stream's gRPC call, sent again where that is safe; closing it cancels the request.

    Args:
        client: Sends the request.
        request: What is asked for.
        events: Whether the caller sees events on the way, or waits for the clip alone.
    """

    _ended = True
    """Until the request has been sent."""
    _link: Link
    _call: Any = None
    """None where the request waits for a server to be found."""

    def __init__(
        self, client: Sender[PauseT, FoundT], request: ClipRequest, *, events: bool = True
    ) -> None:
        self._client, self._request, self._events = client, request, events
        self._retries, self._process = client._retries(request), os.getpid()
        self._round, self._heard = Round(), False
        link = client._find(self._round)
        if isinstance(link, Link):
            self._send(link)
        # Last, so that whoever is interrupted before has nothing to end.
        self._ended = False

    def _send(self, link: Link) -> None:
        timeout_s = self._retries.remaining_s()
        self._call = self._client._send(link, self._request, timeout_s, events=self._events)
        self._link = link
        self._listen()

    def _listen(self) -> None:
        """Gets ready to wait for messages of the call."""

    def _read(self, response: Any) -> Event | None:
        event = read_event(response, self._link.address.shown)
        self._heard = True
        self._client._heard(self._link)
        return event

    def _next_round_s(self) -> float:
        """Seconds until every server is tried once more; raises if that is not to be."""
        wait_s = self._retries.next_wait_s(self._client._verdict(self._round))
        self._round = Round()
        return wait_s

    def _begun_round(self) -> Round:
        """The round; a stream may be asked for its first event long after it was made."""
        if not self._round.failures:
            self._round.began = time.monotonic()
        return self._round

    def _judge(self, error: grpc.RpcError | ReelserveError) -> Event | None:
        """Gets ready for another attempt, or raises what the call has ended with.

        Returns:
            What whoever has seen events is told of it.
        """
        link = self._link
        failure = (
            error
            if isinstance(error, ReelserveError)
            else self._client._failure(error, link.address)
        )
        self._client._failed(link, failure)
        refused = isinstance(failure, UnavailableError) and failure.retry_after_s is not None
        unreachable = isinstance(failure, NoServerError)
        if self._ended or not (refused or unreachable):
            raise failure from None
        if self._heard or (isinstance(failure, NoServerError) and not failure.not_sent):
            # It may have been accepted; what draws it has died, or loses its caller now.
            if self._client.several:
                self._retries.take(failure)
            elif unreachable or self._events:
                raise failure from None
        told, self._heard = self._heard and self._events, False
        self._call.cancel()
        self._call = None
        self._round.failures[link.address.target] = failure
        return Event("restart", ENSEMBLE_STAGES[0], 0.0, None, None, None) if told else None

    def _cancel(self) -> None:
        # A call of the process that this one was forked from is not ours to end.
        if not self._ended and self._process == os.getpid():
            self._ended = True
            if self._call is not None:
                self._call.cancel()

    def _check_process(self) -> None:
        if self._process != os.getpid():
            raise RequestCancelledError(
                f"{self._client.url}: the stream belongs to process {self._process}, which this "
                "one was forked from; begin a new one here"
            )

    def __del__(self) -> None:
        self._cancel()


class Stream(_Call[None, Link | None]):
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
            if self._call is None:
                self._begin()
                continue
            try:
                event = self._read(self._watch.next())
            except (grpc.RpcError, ReelserveError) as error:
                self._watch.end()
                event = self._judge(self._silence() or error)
            if event is not None:
                return event
        raise StopIteration

    def _begin(self) -> None:
        link = self._client._choose(self._begun_round(), self._retries)
        if link is None:
            self._client._pause(self._next_round_s())
        elif self._ended:
            self._client._forget(link)
        else:
            self._send(link)

    def _silence(self) -> ReelserveError | None:
        """What is said where the call was cancelled because its connection fell silent."""
        if not self._watch.lost or self._ended:
            return None
        self._client._drop(self._link)
        return lost(self._link.address.shown)

    def _cancel(self) -> None:
        if not self._ended and self._call is not None:
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


class AsyncStream(_Call[Awaitable[None], Awaitable[Link | None]]):
    """`Stream` for asyncio: `async for`, `async with`, and `anext(stream)` for a single event."""

    _client: AsyncSender

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
            if self._call is None:
                await self._begin()
                continue
            try:
                response = await self._message()
                if response is grpc.aio.EOF:
                    break
                event = self._read(response)
            except (grpc.RpcError, ReelserveError) as error:
                event = self._judge(error)
            if event is not None:
                return event
        raise StopAsyncIteration

    async def _begin(self) -> None:
        link = await self._client._choose(self._begun_round(), self._retries)
        if link is None:
            await self._client._pause(self._next_round_s())
        elif self._ended:
            self._client._forget(link)
        else:
            self._send(link)

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
                    raise lost(self._link.address.shown)
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
