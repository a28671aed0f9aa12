"""A clip on its way: events as they come, from the blocking and the asynchronous client."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from types import TracebackType
from typing import Any

import grpc
import numpy as np
import tritonclient.grpc as triton
from numpy.typing import NDArray
from tritonclient.grpc import service_pb2
from tritonclient.utils import np_to_triton_dtype, serialize_byte_tensor

from reelserve.client._exceptions import (
    InternalError,
    ReelserveError,
    described,
    error_from_status,
    error_from_text,
)
from reelserve.client._retries import Retries
from reelserve.client._video import Video, VideoInfo
from reelserve.pipeline import contract

MICROSECONDS_PER_SECOND = 1_000_000


@dataclass(frozen=True)
class Event:
    """Something that happened to a clip on its way.

    Args:
        kind: `stage`, that stage has ended; `step`, a denoising step has ended; `preview`, there
            is a first picture; `waiting`, nothing new; `clip`, the last one.
        stage: The stage that it is about, or the one that runs.
        seconds: Since the server accepted the request.
        remaining_s: The server's estimate of the seconds until the clip, if it has one.
        step: Denoising steps taken, of kind `step`.
        steps: Of how many.
        preview: A PNG file, of kind `preview`.
        video: The clip, of kind `clip`.
    """

    kind: str
    stage: str
    seconds: float
    remaining_s: float | None
    step: int | None
    steps: int | None
    preview: bytes | None = None
    video: Video | None = None


def stream_request(
    model: str, tensors: dict[str, NDArray[Any]], timeout_s: float
) -> service_pb2.ModelInferRequest:
    """The message that asks for a clip and for what happens on the way.

    Args:
        model: To ask.
        tensors: Of the request, by name.
        timeout_s: Told to the server, which gives up what cannot be ready by then.
    """
    request = service_pb2.ModelInferRequest(model_name=model)
    request.parameters["timeout"].int64_param = int(timeout_s * MICROSECONDS_PER_SECOND)
    request.parameters[contract.PROGRESS].bool_param = True
    for name, tensor in tensors.items():
        datatype = np_to_triton_dtype(tensor.dtype)
        request.inputs.add(name=name, datatype=datatype, shape=tensor.shape)
        raw = serialize_byte_tensor(tensor).item() if datatype == "BYTES" else tensor.tobytes()
        request.raw_input_contents.append(raw)
    return request


def read_event(response: service_pb2.ModelStreamInferResponse, url: str) -> Event | None:
    """The event in a response; None in one that only ends the stream.

    Raises:
        ReelserveError: If it is an error, or cannot be read.
    """
    if response.error_message:
        raise error_from_text(response.error_message, url)
    result = triton.InferResult(response.infer_response)
    names = {output.name for output in response.infer_response.outputs}
    if contract.EVENT.name not in names:
        return None
    try:
        fields = json.loads(_content(result, contract.EVENT.name))
        if contract.PREVIEW.name in names:
            fields["preview"] = _content(result, contract.PREVIEW.name)
        if contract.VIDEO.name in names:
            fields["video"] = read_video(result)
        return Event(**fields)
    except (ValueError, TypeError, IndexError) as problem:
        error: ReelserveError = described(InternalError, f"an event: {problem}", url)
    raise error


def read_video(result: triton.InferResult) -> Video:
    """The clip in a response.

    Raises:
        ValueError: If there is none, or it cannot be read.
    """
    mp4, info = (result.as_numpy(spec.name) for spec in (contract.VIDEO, contract.INFO))
    if mp4 is None or info is None:
        raise ValueError("the answer lacks VIDEO or INFO")
    return Video(mp4=mp4.reshape(-1)[0], info=VideoInfo.from_json(info.reshape(-1)[0]))


def _content(result: triton.InferResult, name: str) -> bytes:
    array = result.as_numpy(name)
    if not isinstance(array, np.ndarray) or not isinstance(array.reshape(-1)[0], bytes):
        raise ValueError(f"{name} is not a text")
    content: bytes = array.reshape(-1)[0]
    return content


class _Call:
    """A stream's gRPC call; closing it cancels the request on the server.

    Args:
        send: Sends the request, which may take so many seconds; gives the gRPC call.
        retries: What may be spent on refusals.
        url: `host:port` of the server.
    """

    _ended = True
    """Until the request has been sent."""

    def __init__(self, send: Callable[[float], Any], retries: Retries, url: str) -> None:
        self._send, self._retries, self._url = send, retries, url
        self._call = send(retries.remaining_s())
        self._ended, self._heard = False, False

    def _read(self, response: Any) -> Event | None:
        event = read_event(response, self._url)
        self._heard = True
        return event

    def _next_wait_s(self, error: grpc.RpcError | ReelserveError) -> float:
        """Seconds until the request is sent again; raises if it is not."""
        if isinstance(error, ReelserveError):
            failure = error
        else:
            details = error.details() or "no message"
            failure = error_from_status(error.code(), details, self._url)
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


class Stream(_Call):
    """Events of a clip on its way, an iterator and a context manager.

    Leaving it before the last event, in any way, cancels the request on the server.
    """

    def __init__(
        self,
        send: Callable[[float], Any],
        retries: Retries,
        url: str,
        pause: Callable[[float], None],
    ) -> None:
        super().__init__(send, retries, url)
        self._pause = pause

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

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()


class AsyncStream(_Call):
    """`Stream` for asyncio: `async for`, `async with`."""

    def __init__(
        self,
        send: Callable[[float], Any],
        retries: Retries,
        url: str,
        pause: Callable[[float], Awaitable[None]],
    ) -> None:
        super().__init__(send, retries, url)
        self._pause = pause

    def __aiter__(self) -> AsyncStream:
        return self

    async def __anext__(self) -> Event:
        """As `Stream.__next__`; cancelling the task cancels the request."""
        try:
            return await self._next()
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

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.aclose()
