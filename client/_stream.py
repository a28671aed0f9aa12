"""Streams of events, from the blocking and the asynchronous client."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, Generic, TypeVar

import grpc

from reelserve.client._events import Event, read_event
from reelserve.client._exceptions import ReelserveError
from reelserve.client._retries import Retries

PauseT = TypeVar("PauseT")


class _Call(Generic[PauseT]):
    """A stream's gRPC call; closing it cancels the request on the server.

    Args:
        send: Sends the request, which may take so many seconds; gives the gRPC call.
        retries: What may be spent on refusals.
        url: Address of the server, for messages.
        failure: Turns an error of gRPC into one of this client.
        pause: Waits so many seconds before the request is sent again.
    """

    _ended = True
    """Until the request has been sent."""

    def __init__(
        self,
        send: Callable[[float], Any],
        retries: Retries,
        url: str,
        failure: Callable[[grpc.RpcError], ReelserveError],
        pause: Callable[[float], PauseT],
    ) -> None:
        self._send, self._retries, self._url, self._failure = send, retries, url, failure
        self._pause = pause
        self._call = send(retries.remaining_s())
        self._ended, self._heard = False, False

    def _read(self, response: Any) -> Event | None:
        event = read_event(response, self._url)
        self._heard = True
        return event

    def _next_wait_s(self, error: grpc.RpcError | ReelserveError) -> float:
        """Seconds until the request is sent again; raises if it is not."""
        failure = error if isinstance(error, ReelserveError) else self._failure(error)
        if self._heard:
            # It was accepted, whatever the words are.
            raise failure from None
        return self._retries.next_wait_s(failure)

    def _send_again(self) -> None:
        # It may have been closed during the wait.
        if not self._ended:
            self._call.cancel()
            self._call = self._send(self._retries.remaining_s())

    def _cancel(self) -> None:
        if not self._ended:
            self._ended = True
            self._call.cancel()

    def __del__(self) -> None:
        self._cancel()


class Stream(_Call[None]):
    """Events of a clip on its way, an iterator and a context manager.

    Leaving it before the last event, in any way, cancels the request on the server.
    """

    def __iter__(self) -> Stream:
        return self

    def __next__(self) -> Event:
        """The next event.

        Raises:
            ReelserveError: One of its subclasses, see there.
        """
        try:
            return self._next()
        except BaseException:
            self._cancel()
            raise

    def _next(self) -> Event:
        while not self._ended:
            try:
                event = self._read(next(self._call))
            except (grpc.RpcError, ReelserveError) as error:
                self._pause(self._next_wait_s(error))
                self._send_again()
            else:
                if event is not None:
                    return event
        raise StopIteration

    def close(self) -> None:
        """Cancels the request if it has not ended."""
        self._cancel()

    def __enter__(self) -> Stream:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()


class AsyncStream(_Call[Awaitable[None]]):
    """`Stream` for asyncio: `async for`, `async with`."""

    def __init__(
        self,
        send: Callable[[float], Any],
        retries: Retries,
        url: str,
        failure: Callable[[grpc.RpcError], ReelserveError],
        pause: Callable[[float], Awaitable[None]],
        interruption: Callable[[asyncio.CancelledError], BaseException],
    ) -> None:
        super().__init__(send, retries, url, failure, pause)
        self._interruption = interruption

    def __aiter__(self) -> AsyncStream:
        return self

    async def __anext__(self) -> Event:
        """As `Stream.__next__`; cancelling the task cancels the request."""
        try:
            return await self._next()
        except asyncio.CancelledError as error:
            self._cancel()
            raise self._interruption(error) from None
        except BaseException:
            self._cancel()
            raise

    async def _next(self) -> Event:
        while not self._ended:
            try:
                response = await self._call.read()
                if response is grpc.aio.EOF:
                    break
                event = self._read(response)
            except (grpc.RpcError, ReelserveError) as error:
                await self._pause(self._next_wait_s(error))
                self._send_again()
            else:
                if event is not None:
                    return event
        raise StopAsyncIteration

    async def aclose(self) -> None:
        """Cancels the request if it has not ended."""
        self._cancel()

    async def __aenter__(self) -> AsyncStream:
        return self

    async def __aexit__(self, *exception: object) -> None:
        await self.aclose()
