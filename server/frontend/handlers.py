"""The methods of `inference.GRPCInferenceService`."""

from __future__ import annotations

import asyncio
import contextlib
import math
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from functools import partial
from typing import Any

import grpc
from google.protobuf.message import DecodeError, Message
from tritonclient.grpc import service_pb2

from reelserve.pipeline.contract import EVENT, PUBLIC_MODEL
from reelserve.server.frontend.clip import Clip
from reelserve.server.frontend.errors import CallError, deadline_passed, invalid
from reelserve.server.frontend.events import Event
from reelserve.server.frontend.messages import (
    InferRequest,
    answer,
    parse,
    read_request,
    shown,
)
from reelserve.server.frontend.service import Service
from reelserve.server.frontend.statistics import added_up
from reelserve.server.frontend.stream import follow
from reelserve.server.frontend.upstream import SERVICE

READ_ONLY = ("ServerMetadata", "ModelMetadata", "ModelConfig", "RepositoryIndex")
ERROR_STATUS = "triton_grpc_error"
"""Header that asks a stream to end with an error's own status instead of telling it."""
MAX_AT_ONCE = 256
"""Requests of one stream that are not answered."""
MAX_MESSAGE_CHARACTERS = 1000

Context = Any
Unary = Callable[[bytes, Context], Awaitable[bytes]]


class InferenceHandlers(grpc.GenericRpcHandler):  # type: ignore[misc]
    """Answers calls; messages come and go as bytes, so that what is damaged is refused in words.

    Args:
        service: The clips.
    """

    def __init__(self, service: Service) -> None:
        self._service = service
        self._unary: dict[str, Unary] = {
            "ModelInfer": self._infer,
            "ServerLive": self._live,
            "ServerReady": self._server_ready,
            "ModelReady": self._model_ready,
            "ModelStatistics": self._statistics,
            **{method: partial(self._pass_on, method) for method in READ_ONLY},
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
        request, left_s = self._read(raw, context)
        clip = self._service.begin(request, left_s)
        outputs = await self._service.wait(clip, left_s)
        return bytes(answer(outputs, request.id, request.outputs).SerializeToString())

    async def _stream(self, requests: AsyncIterator[bytes], context: Context) -> None:
        """Answers the requests of a stream beside each other; plain ones in their order."""
        one = _StreamWriter(context)
        tasks: set[asyncio.Task[None]] = set()
        failed: asyncio.Future[None] = asyncio.get_running_loop().create_future()

        def ended(task: asyncio.Task[None]) -> None:
            tasks.discard(task)
            error = None if task.cancelled() else task.exception()
            if error is not None and not failed.done():
                failed.set_exception(error)

        async def read() -> None:
            before: asyncio.Task[None] | None = None
            async for raw in requests:
                before = asyncio.create_task(self._stream_one(raw, context, one, before))
                tasks.add(before)
                before.add_done_callback(ended)
                if len(tasks) >= MAX_AT_ONCE:
                    await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            if tasks:
                await asyncio.wait(tasks)

        reading = asyncio.create_task(read())
        try:
            # An error ends the stream at once, though its caller may send more.
            await asyncio.wait({reading, failed}, return_when=asyncio.FIRST_COMPLETED)
            await (failed if failed.done() else reading)
        except CallError as error:
            await context.abort(error.code, error.message[:MAX_MESSAGE_CHARACTERS])
        finally:
            for task in (reading, *tasks):
                task.cancel()
            failed.cancel()

    async def _stream_one(
        self, raw: bytes, context: Context, writer: _StreamWriter, before: asyncio.Task[None] | None
    ) -> None:
        request_id, began = "", time.monotonic()
        try:
            request, left_s = self._read(raw, context)
            request_id = request.id
            clip = self._service.begin(request, left_s)
            if request.progress:
                await self._tell(clip, request, writer, left_s)
            # The clip may be older than this request.
            left_s -= time.monotonic() - began
            outputs = dict(await self._service.wait(clip, left_s))
            if request.progress:
                event = Event("clip", clip.stage(), clip.seconds, 0.0)
                outputs = {EVENT.name: event.to_json(), **outputs}
            reply = service_pb2.ModelStreamInferResponse(
                infer_response=answer(outputs, request.id, _wanted(request))
            )
        except Exception as problem:
            error = problem if isinstance(problem, CallError) else CallError.internal(problem)
            if (ERROR_STATUS, "true") in (context.invocation_metadata() or ()):
                raise error from None
            # Triton's message of a stream has no room for a status.
            reply = service_pb2.ModelStreamInferResponse(
                error_message=f"{error.code.name}: {error.message}",
                infer_response=service_pb2.ModelInferResponse(id=request_id),
            )
        if before is not None:
            await asyncio.wait({before})
        await writer.write(reply)

    async def _tell(
        self, clip: Clip, request: InferRequest, writer: _StreamWriter, left_s: float
    ) -> None:
        """Tells the events of a clip until it has ended, or its deadline passes."""

        async def tell() -> None:
            async with contextlib.aclosing(follow(clip, self._service.remaining_s)) as events:
                async for outputs in events:
                    message = answer(outputs, request.id, last=False)
                    await writer.write(service_pb2.ModelStreamInferResponse(infer_response=message))

        try:
            await asyncio.wait_for(tell(), None if math.isinf(left_s) else left_s)
        except asyncio.TimeoutError:
            self._service.leave(clip)
            raise deadline_passed() from None
        except BaseException:
            self._service.leave(clip)
            raise

    def _read(self, raw: bytes, context: Context) -> tuple[InferRequest, float]:
        """A request, and the seconds until its deadline."""
        try:
            request = read_request(parse(raw))
        except CallError:
            self._service.recorder.ended("invalid")
            raise
        remaining_s = context.time_remaining()
        left_s = math.inf if remaining_s is None else remaining_s
        return request, min(left_s, request.timeout_s or math.inf)

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
        return await self._pass_on("ModelReady", raw, context)

    async def _statistics(self, raw: bytes, context: Context) -> bytes:
        _read_message(service_pb2.ModelStatisticsRequest, raw)
        ready = [upstream for upstream in self._service.upstreams if upstream.line.ready]
        if not ready:
            raise self._service.upstreams[0].starting()
        calls = (upstream.pass_on("ModelStatistics", raw) for upstream in ready)
        return added_up(await asyncio.gather(*calls))

    async def _pass_on(self, method: str, raw: bytes, context: Context) -> bytes:
        upstreams = self._service.upstreams
        upstream = next((one for one in upstreams if one.line.ready), upstreams[0])
        return await upstream.pass_on(method, raw)

    async def _closed(self, method: str, raw: bytes, context: Context) -> bytes:
        raise CallError(
            grpc.StatusCode.UNIMPLEMENTED,
            f"method {shown(method)} is not offered: {PUBLIC_MODEL} may be called, and what only "
            "reads may be asked",
        )


class _StreamWriter:
    """Writes the responses of a stream one at a time."""

    def __init__(self, context: Context) -> None:
        self._context, self._lock = context, asyncio.Lock()

    async def write(self, message: Message) -> None:
        async with self._lock:
            await self._context.write(message.SerializeToString())


async def _answered(method: Unary, raw: bytes, context: Context) -> bytes:
    """The answer of a method; its error as the status of the call."""
    try:
        return await method(raw, context)
    except CallError as error:
        failure = error
    except Exception as error:
        failure = CallError.internal(error)
    await context.abort(failure.code, failure.message[:MAX_MESSAGE_CHARACTERS])
    raise AssertionError("unreachable")


def _read_message(kind: Any, raw: bytes) -> Any:
    try:
        return kind.FromString(raw)
    except DecodeError:
        raise invalid(f"the {len(raw)} bytes of the message are no {kind.__name__}") from None


def _wanted(request: InferRequest) -> tuple[str, ...]:
    """Outputs of the last response: those that were asked for, and its event."""
    return (*request.outputs, EVENT.name) if request.outputs else ()
