"""The methods of `inference.GRPCInferenceService`."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from functools import partial
from typing import Any

import grpc
from google.protobuf.message import DecodeError
from tritonclient.grpc import service_pb2

from reelserve.pipeline.contract import CAPABILITIES, PUBLIC_MODEL
from reelserve.server.frontend.call_errors import CallError, invalid
from reelserve.server.frontend.doors import Doors
from reelserve.server.frontend.messages import answer, capabilities, shown
from reelserve.server.frontend.service import Service
from reelserve.server.frontend.statistics import added_up
from reelserve.server.frontend.stream_call import Context, StreamCall, abort, read_call
from reelserve.server.frontend.upstream import SERVICE

READ_ONLY = {
    "ServerMetadata": service_pb2.ServerMetadataRequest,
    "ModelMetadata": service_pb2.ModelMetadataRequest,
    "RepositoryIndex": service_pb2.RepositoryIndexRequest,
}
"""Methods that Triton answers, and what they are asked with."""

Unary = Callable[[bytes, Context], Awaitable[bytes]]


class InferenceHandlers(grpc.GenericRpcHandler):  # type: ignore[misc]
    """Answers calls; messages come and go as bytes, so that what is damaged is refused in words.

    Args:
        service: The clips.
        doors: Who may ask for one.
    """

    def __init__(self, service: Service, doors: Doors) -> None:
        self._service, self._doors = service, doors
        self._unary: dict[str, Unary] = {
            "ModelInfer": self._infer,
            "ServerLive": self._live,
            "ServerReady": self._server_ready,
            "ModelReady": self._model_ready,
            "ModelConfig": self._model_config,
            "ModelStatistics": self._statistics,
            **{method: partial(self._read_only, method) for method in READ_ONLY},
        }

    def service(self, details: Any) -> Any:
        """The handler of a method; None for those of other services."""
        name, _, method = details.method.lstrip("/").rpartition("/")
        if name != SERVICE:
            return None
        if method == "ModelStreamInfer":
            return grpc.stream_stream_rpc_method_handler(self._stream)
        known = self._unary.get(method, partial(self._closed, method))
        return grpc.unary_unary_rpc_method_handler(partial(_answered, known))

    async def _infer(self, raw: bytes, context: Context) -> bytes:
        service, metadata = self._service, context.invocation_metadata()
        with service.requests.watch("ModelInfer", metadata) as record:
            request, left_s, caller = read_call(service, self._doors, raw, context, record)
            clip = service.begin(request, left_s, caller, record)
            outputs = await service.wait(clip, left_s, record.began)
            return bytes(answer(outputs, request.id, request.outputs).SerializeToString())

    async def _stream(self, requests: AsyncIterator[bytes], context: Context) -> None:
        await StreamCall(self._service, self._doors, context).answer(requests)

    async def _live(self, raw: bytes, context: Context) -> bytes:
        return bytes(service_pb2.ServerLiveResponse(live=True).SerializeToString())

    async def _server_ready(self, raw: bytes, context: Context) -> bytes:
        reply = service_pb2.ServerReadyResponse(ready=self._service.ready)
        return bytes(reply.SerializeToString())

    async def _model_ready(self, raw: bytes, context: Context) -> bytes:
        request = _read_message(service_pb2.ModelReadyRequest, raw)
        if request.name == PUBLIC_MODEL or not self._service.ready:
            reply = service_pb2.ModelReadyResponse(ready=self._service.ready)
            return bytes(reply.SerializeToString())
        return await self._pass_on("ModelReady", request)

    async def _statistics(self, raw: bytes, context: Context) -> bytes:
        request = _read_message(service_pb2.ModelStatisticsRequest, raw)
        ready = [upstream for upstream in self._service.upstreams if upstream.load.ready]
        if not ready:
            raise self._service.upstreams[0].starting()
        calls = (upstream.pass_on("ModelStatistics", _written_anew(request)) for upstream in ready)
        return added_up(await asyncio.gather(*calls))

    async def _model_config(self, raw: bytes, context: Context) -> bytes:
        request = _read_message(service_pb2.ModelConfigRequest, raw)
        reply = await self._pass_on("ModelConfig", request)
        if request.name != PUBLIC_MODEL:
            return reply
        message = service_pb2.ModelConfigResponse.FromString(reply)
        message.config.parameters[CAPABILITIES].string_value = capabilities(
            self._service.checkpoint
        )
        return bytes(message.SerializeToString())

    async def _read_only(self, method: str, raw: bytes, context: Context) -> bytes:
        return await self._pass_on(method, _read_message(READ_ONLY[method], raw))

    async def _pass_on(self, method: str, request: Any) -> bytes:
        upstreams = self._service.upstreams
        upstream = next((one for one in upstreams if one.load.ready), upstreams[0])
        return await upstream.pass_on(method, _written_anew(request))

    async def _closed(self, method: str, raw: bytes, context: Context) -> bytes:
        raise CallError(
            grpc.StatusCode.UNIMPLEMENTED,
            f"method {shown(method)} is not offered: {PUBLIC_MODEL} may be called, and what only "
            "reads may be asked",
        )


async def _answered(method: Unary, raw: bytes, context: Context) -> bytes:
    """The answer of a method; its error as the status of the call."""
    try:
        return await method(raw, context)
    except CallError as error:
        failure = error
    except Exception as error:
        failure = CallError.internal(error)
    await abort(context, failure)
    raise AssertionError("unreachable")


def _written_anew(request: Any) -> bytes:
    """A message that was read, without the fields that its kind does not have."""
    request.DiscardUnknownFields()
    return bytes(request.SerializeToString())


def _read_message(kind: Any, raw: bytes) -> Any:
    try:
        return kind.FromString(raw)
    except DecodeError:
        raise invalid(f"the {len(raw)} bytes of the message are no {kind.__name__}") from None
