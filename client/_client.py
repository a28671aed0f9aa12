"""The two clients: blocking and asynchronous."""

from __future__ import annotations

from types import TracebackType
from typing import TYPE_CHECKING, Any, NoReturn

import grpc
import tritonclient.grpc as triton
import tritonclient.grpc.aio as triton_aio
from tritonclient.grpc import service_pb2_grpc
from tritonclient.utils import InferenceServerException, np_to_triton_dtype

from reelserve.client._exceptions import (
    InternalError,
    ReelserveError,
    described,
    error_from_status,
)
from reelserve.client._request import GenerateOptions, request_tensors
from reelserve.client._statistics import StageStatistics, read_statistics
from reelserve.client._stream import (
    MICROSECONDS_PER_SECOND,
    STATUS_METADATA,
    STREAM_MODEL,
    AsyncStream,
    Stream,
    read_video,
    stream_request,
)
from reelserve.client._video import Video

if TYPE_CHECKING:
    from typing_extensions import Unpack

DEFAULT_URL = "localhost:8001"
MODEL = "text_to_video"
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
        timeout_s: Bound on every `generate` that sets none of its own.
        model: Asked by `generate`.
        stream_model: Asked by `stream`.
    """

    def __init__(
        self,
        url: str = DEFAULT_URL,
        *,
        timeout_s: float = DEFAULT_TIMEOUT_S,
        model: str = MODEL,
        stream_model: str = STREAM_MODEL,
    ) -> None:
        self.url, self.timeout_s = url, timeout_s
        self.model, self.stream_model = model, stream_model
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
        call = _call(self, prompt, options)
        try:
            result = self._triton.infer(**call)
        except InferenceServerException as error:
            _raise(error, self.url)
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
        return Stream(_stream_call(self, self._channel, prompt, options), self.url)

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
            _raise(error, self.url)
        return read_statistics(response)

    def close(self) -> None:
        """Closes the connection; requests in flight are cancelled."""
        self._channel.close()
        self._triton.close()

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
        model: str = MODEL,
        stream_model: str = STREAM_MODEL,
    ) -> None:
        self.url, self.timeout_s = url, timeout_s
        self.model, self.stream_model = model, stream_model
        self._channel = grpc.aio.insecure_channel(url, options=channel_arguments(url))
        self._triton = triton_aio.InferenceServerClient(url, channel_args=channel_arguments(url))

    async def generate(self, prompt: str, **options: Unpack[GenerateOptions]) -> Video:
        """As `Client.generate`; cancelling the task cancels the request."""
        call = _call(self, prompt, options)
        try:
            result = await self._triton.infer(**call)
        except InferenceServerException as error:
            _raise(error, self.url)
        return _video(result, self.url)

    def stream(self, prompt: str, **options: Unpack[GenerateOptions]) -> AsyncStream:
        """As `Client.stream`: `async for event in client.stream("a red circle"): …`."""
        return AsyncStream(_stream_call(self, self._channel, prompt, options), self.url)

    async def close(self) -> None:
        """Closes the connection; requests in flight are cancelled."""
        await self._channel.close()
        await self._triton.close()

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


def _call(client: Client | AsyncClient, prompt: str, options: GenerateOptions) -> dict[str, Any]:
    """Arguments of Triton's `infer`."""
    inputs = []
    for name, tensor in request_tensors(prompt, options).items():
        inputs.append(triton.InferInput(name, tensor.shape, np_to_triton_dtype(tensor.dtype)))
        inputs[-1].set_data_from_numpy(tensor)
    timeout_s = _timeout_s(client, options)
    return {
        "model_name": client.model,
        "inputs": inputs,
        "client_timeout": timeout_s,
        "timeout": int(timeout_s * MICROSECONDS_PER_SECOND),
    }


def _stream_call(
    client: Client | AsyncClient, channel: Any, prompt: str, options: GenerateOptions
) -> Any:
    """The call of a stream; `channel` is of the kind that the client needs."""
    timeout_s = _timeout_s(client, options)
    request = stream_request(client.stream_model, request_tensors(prompt, options), timeout_s)
    stub = service_pb2_grpc.GRPCInferenceServiceStub(channel)
    return stub.ModelStreamInfer(iter([request]), metadata=STATUS_METADATA, timeout=timeout_s)


def _timeout_s(client: Client | AsyncClient, options: GenerateOptions) -> float:
    timeout_s = options.get("timeout_s")
    return client.timeout_s if timeout_s is None else timeout_s


def _raise(error: InferenceServerException, url: str) -> NoReturn:
    status = _STATUS_BY_TEXT.get(error.status() or "")
    raise error_from_status(status, error.message() or "no message", url) from None


def _video(result: triton.InferResult, url: str) -> Video:
    try:
        return read_video(result)
    except (ValueError, IndexError) as problem:
        error: ReelserveError = described(InternalError, str(problem), url)
    raise error
