"""The two clients: blocking and asynchronous."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Callable
from types import TracebackType
from typing import TYPE_CHECKING, Any

import grpc
import tritonclient.grpc as triton
import tritonclient.grpc.aio as triton_aio
from tritonclient.grpc import service_pb2_grpc
from tritonclient.utils import InferenceServerException, np_to_triton_dtype

from reelserve.client._exceptions import (
    InternalError,
    ReelserveError,
    RequestCancelledError,
    described,
    error_from_status,
)
from reelserve.client._request import GenerateOptions, request_tensors
from reelserve.client._retries import Retries
from reelserve.client._statistics import StageStatistics, read_statistics
from reelserve.client._stream import (
    MICROSECONDS_PER_SECOND,
    AsyncStream,
    Stream,
    read_video,
    stream_request,
)
from reelserve.client._video import Video
from reelserve.pipeline.contract import PUBLIC_MODEL

if TYPE_CHECKING:
    from typing_extensions import Unpack

DEFAULT_URL = "localhost:8001"
MODEL = PUBLIC_MODEL
DEFAULT_TIMEOUT_S = 600.0
"""A bound on waiting for a clip, so that nothing waits forever."""
STATUS_TIMEOUT_S = 10.0
"""A bound on calls that ask for state; a live server answers them at once."""

LOOPBACK_HOSTS = ("localhost", "127.0.0.1", "[::1]")

_STATUS_BY_TEXT = {str(status): status for status in grpc.StatusCode}


class Client:
    """A connection to a server; a context manager. Threads may share it.

    Args:
        url: `host:port` of the server's gRPC endpoint. Nothing is sent yet.
        timeout_s: Bound on every `generate` and `stream` that sets none of its own.
        max_retries: How often a request is sent again that the server has refused for want of a
            place, where the call does not say. The waits grow, with jitter, are never shorter
            than the server asks for, and end within `timeout_s`. What may have been accepted is
            never sent again.
        model: That is asked.
    """

    def __init__(
        self,
        url: str = DEFAULT_URL,
        *,
        timeout_s: float = DEFAULT_TIMEOUT_S,
        max_retries: int = 0,
        model: str = MODEL,
    ) -> None:
        self.url, self.timeout_s, self.max_retries = url, timeout_s, max_retries
        self.model = model
        self._closed = threading.Event()
        self._channel = grpc.insecure_channel(url, options=channel_arguments(url))
        self._triton = triton.InferenceServerClient(url, channel_args=channel_arguments(url))

    def generate(self, prompt: str, **options: Unpack[GenerateOptions]) -> Video:
        """Draws a clip and waits for it.

        Args:
            prompt: What it should show.
            options: See `GenerateOptions`.

        Raises:
            ReelserveError: One of its subclasses, see there.
            TypeError: If there is no such option.
        """
        inputs, retries = _inputs(prompt, options), _retries(self, options)
        while True:
            try:
                result = self._triton.infer(self.model, inputs, **_timeouts(retries))
            except InferenceServerException as error:
                self._pause(retries.next_wait_s(_failure(error, self.url)))
            else:
                return _video(result, self.url)

    def stream(self, prompt: str, **options: Unpack[GenerateOptions]) -> Stream:
        """Draws a clip and tells how far it is; the last event holds it.

        `for event in client.stream("a red circle"): …`. Leaving the loop cancels the request.

        Args:
            prompt: What it should show.
            options: See `GenerateOptions`.

        Raises:
            InvalidArgumentError: If a value does not fit; other errors come with the events.
            TypeError: If there is no such option.
        """
        send, retries = _sender(self, self._channel, prompt, options), _retries(self, options)
        return Stream(send, retries, self.url, self._pause)

    def is_ready(self) -> bool:
        """Whether the server answers and serves the model."""
        try:
            return bool(
                self._triton.is_server_ready(client_timeout=STATUS_TIMEOUT_S)
                and self._triton.is_model_ready(self.model, client_timeout=STATUS_TIMEOUT_S)
            )
        except InferenceServerException:
            return False

    def statistics(self) -> dict[str, StageStatistics]:
        """Stage to the counters that Triton keeps of it, over all clients.

        Raises:
            ReelserveError: If the server does not answer.
        """
        try:
            response = self._triton.get_inference_statistics(client_timeout=STATUS_TIMEOUT_S)
        except InferenceServerException as error:
            raise _failure(error, self.url) from None
        return read_statistics(response)

    def close(self) -> None:
        """Closes the connection; requests in flight are cancelled."""
        self._closed.set()
        self._channel.close()
        self._triton.close()

    def _pause(self, seconds: float) -> None:
        """Waits between two attempts; closing the client ends it."""
        if self._closed.wait(seconds):
            raise _closed_error(self.url) from None

    def __enter__(self) -> Client:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()


class AsyncClient:
    """`Client` for asyncio; an asynchronous context manager. Arguments are the same."""

    def __init__(
        self,
        url: str = DEFAULT_URL,
        *,
        timeout_s: float = DEFAULT_TIMEOUT_S,
        max_retries: int = 0,
        model: str = MODEL,
    ) -> None:
        self.url, self.timeout_s, self.max_retries = url, timeout_s, max_retries
        self.model = model
        self._closed = asyncio.Event()
        self._channel = grpc.aio.insecure_channel(url, options=channel_arguments(url))
        self._triton = triton_aio.InferenceServerClient(url, channel_args=channel_arguments(url))

    async def generate(self, prompt: str, **options: Unpack[GenerateOptions]) -> Video:
        """As `Client.generate`; cancelling the task cancels the request."""
        inputs, retries = _inputs(prompt, options), _retries(self, options)
        while True:
            try:
                result = await self._triton.infer(self.model, inputs, **_timeouts(retries))
            except InferenceServerException as error:
                await self._pause(retries.next_wait_s(_failure(error, self.url)))
            else:
                return _video(result, self.url)

    def stream(self, prompt: str, **options: Unpack[GenerateOptions]) -> AsyncStream:
        """As `Client.stream`: `async for event in client.stream("a red circle"): …`."""
        send, retries = _sender(self, self._channel, prompt, options), _retries(self, options)
        return AsyncStream(send, retries, self.url, self._pause)

    async def close(self) -> None:
        """Closes the connection; requests in flight are cancelled."""
        self._closed.set()
        await self._channel.close()
        await self._triton.close()

    async def _pause(self, seconds: float) -> None:
        with contextlib.suppress(asyncio.TimeoutError):
            await asyncio.wait_for(self._closed.wait(), seconds)
            raise _closed_error(self.url) from None

    async def __aenter__(self) -> AsyncClient:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.close()


def channel_arguments(url: str) -> list[tuple[str, int]]:
    """Options of the gRPC channel to `url`."""
    unlimited = -1
    arguments = [
        # A clip is larger than gRPC's default of 4 MiB.
        ("grpc.max_send_message_length", unlimited),
        ("grpc.max_receive_message_length", unlimited),
    ]
    if url.rpartition(":")[0] in LOOPBACK_HOSTS:
        # gRPC takes https_proxy for this machine's own addresses too, unless no_proxy lists them.
        arguments.append(("grpc.enable_http_proxy", 0))
    return arguments


def _inputs(prompt: str, options: GenerateOptions) -> list[triton.InferInput]:
    """Inputs of Triton's `infer`."""
    inputs = []
    for name, tensor in request_tensors(prompt, options).items():
        inputs.append(triton.InferInput(name, tensor.shape, np_to_triton_dtype(tensor.dtype)))
        inputs[-1].set_data_from_numpy(tensor)
    return inputs


def _timeouts(retries: Retries) -> dict[str, float]:
    """Bounds of the next attempt, for Triton's `infer`: gRPC's and what the server is told."""
    timeout_s = retries.remaining_s()
    return {"client_timeout": timeout_s, "timeout": int(timeout_s * MICROSECONDS_PER_SECOND)}


def _sender(
    client: Client | AsyncClient, channel: Any, prompt: str, options: GenerateOptions
) -> Callable[[float], Any]:
    """Sends the request of a stream; `channel` is of the kind that the client needs."""
    tensors = request_tensors(prompt, options)
    stub = service_pb2_grpc.GRPCInferenceServiceStub(channel)

    def send(timeout_s: float) -> Any:
        request = stream_request(client.model, tensors, timeout_s)
        return stub.ModelStreamInfer(iter([request]), timeout=timeout_s)

    return send


def _retries(client: Client | AsyncClient, options: GenerateOptions) -> Retries:
    max_retries, timeout_s = options.get("max_retries"), options.get("timeout_s")
    return Retries(
        client.max_retries if max_retries is None else max_retries,
        client.timeout_s if timeout_s is None else timeout_s,
    )


def _failure(error: InferenceServerException, url: str) -> ReelserveError:
    status = _STATUS_BY_TEXT.get(error.status() or "")
    return error_from_status(status, error.message() or "no message", url)


def _closed_error(url: str) -> ReelserveError:
    return described(RequestCancelledError, "the client was closed", url)


def _video(result: triton.InferResult, url: str) -> Video:
    try:
        return read_video(result)
    except (ValueError, IndexError) as problem:
        error: ReelserveError = described(InternalError, str(problem), url)
    raise error
