"""One call of `ModelStreamInfer`: its requests, and the responses to them."""

from __future__ import annotations

import asyncio
import contextlib
import math
import time
from collections.abc import AsyncIterator
from typing import Any

from tritonclient.grpc import service_pb2

from reelserve.pipeline.contract import EVENT
from reelserve.server.frontend.api_keys import KeyHolder
from reelserve.server.frontend.call_errors import CallError
from reelserve.server.frontend.clip import Clip
from reelserve.server.frontend.doors import Doors
from reelserve.server.frontend.events import ClipEvent
from reelserve.server.frontend.messages import InferRequest, answer, parse, read_request
from reelserve.server.frontend.request_log import CallRecord
from reelserve.server.frontend.service import Service
from reelserve.server.frontend.stream import clip_events, heartbeats
from reelserve.server.metric_table import REFUSALS, REQUESTS

ERROR_STATUS = ("triton_grpc_error", "true")
"""Header that asks a stream to end with an error's own status instead of telling it."""
MAX_AT_ONCE = 256
"""Most requests of one stream that wait for their answers at once."""
MAX_MESSAGE_CHARACTERS = 1000

Context = Any
"""Context of a call, from grpc.aio."""


class StreamCall:
    """Answers the requests of a stream beside each other; plain ones in their order.

    Args:
        service: The clips.
        doors: Who may ask for one.
        context: Context of the call.
    """

    def __init__(self, service: Service, doors: Doors, context: Context) -> None:
        self._service, self._doors, self._context = service, doors, context
        self._writing = asyncio.Lock()
        self._tasks: set[asyncio.Task[None]] = set()
        self._failed: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    async def answer(self, requests: AsyncIterator[bytes]) -> None:
        """Answers all of them; ends with the first error where the caller asked for that."""
        reading = asyncio.create_task(self._read_all(requests))
        try:
            await asyncio.wait({reading, self._failed}, return_when=asyncio.FIRST_COMPLETED)
            await (self._failed if self._failed.done() else reading)
        except CallError as error:
            await abort(self._context, error)
        finally:
            self._failed.cancel()
            for task in (reading, *self._tasks):
                task.cancel()

    async def _read_all(self, requests: AsyncIterator[bytes]) -> None:
        before: asyncio.Task[None] | None = None
        async for raw in requests:
            before = asyncio.create_task(self._answer_one(raw, before))
            self._tasks.add(before)
            before.add_done_callback(self._ended)
            if len(self._tasks) >= MAX_AT_ONCE:
                await asyncio.wait(self._tasks, return_when=asyncio.FIRST_COMPLETED)
        if self._tasks:
            await asyncio.wait(self._tasks)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        error = None if task.cancelled() else task.exception()
        if error is not None and not self._failed.done():
            self._failed.set_exception(error)

    async def _answer_one(self, raw: bytes, before: asyncio.Task[None] | None) -> None:
        metadata = self._context.invocation_metadata()
        try:
            with self._service.requests.watch("ModelStreamInfer", metadata) as record:
                reply = await self._drawn(raw, record)
        except Exception as problem:
            error = problem if isinstance(problem, CallError) else CallError.internal(problem)
            if ERROR_STATUS in (metadata or ()):
                raise error from None
            # Triton's message of a stream has no room for a status.
            reply = service_pb2.ModelStreamInferResponse(
                error_message=f"{error.code.name}: {error.message}",
                infer_response=service_pb2.ModelInferResponse(id=record.id),
            )
        if before is not None:
            await asyncio.wait({before})
        await self._write(reply)

    async def _drawn(self, raw: bytes, record: CallRecord) -> Any:
        """The last response to a request; those before it are written meanwhile."""
        service = self._service
        request, left_s, caller = read_call(service, self._doors, raw, self._context, record)
        clip = service.begin(request, left_s, caller, record)
        telling = self._tell(clip, request) if _tells(request) else None
        outputs = dict(await service.wait(clip, left_s, record.began, telling))
        return service_pb2.ModelStreamInferResponse(infer_response=_last(clip, request, outputs))

    async def _tell(self, clip: Clip, request: InferRequest) -> None:
        """Tells the events of a clip until it has ended."""
        told = clip_events if request.progress else heartbeats
        async with contextlib.aclosing(told(clip, self._service.remaining_s)) as events:
            async for outputs in events:
                message = answer(outputs, request.id, last=False)
                await self._write(service_pb2.ModelStreamInferResponse(infer_response=message))

    async def _write(self, message: Any) -> None:
        async with self._writing:
            await self._context.write(message.SerializeToString())


def read_call(
    service: Service, doors: Doors, raw: bytes, context: Context, record: CallRecord
) -> tuple[InferRequest, float, KeyHolder | None]:
    """A request, the seconds until its deadline, and who sent it; `record` is told as well.

    Raises:
        CallError: If it is not what it must be, or its key is not known.
    """
    try:
        # For every request: a stream may be older than the keys.
        caller = doors.check(context.invocation_metadata())
    except CallError:
        service.recorder.count(REFUSALS, reason="key")
        raise
    record.key = "" if caller is None else caller.name
    try:
        request = read_request(parse(raw))
    except CallError:
        service.recorder.count(REQUESTS, outcome="invalid")
        raise
    remaining_s = context.time_remaining()
    left_s = math.inf if remaining_s is None else remaining_s
    left_s = min(left_s, request.timeout_s or math.inf)
    record.id, record.deadline = request.id, time.monotonic() + left_s
    return request, left_s, caller


async def abort(context: Context, error: CallError) -> None:
    """Ends a call with an error's status."""
    await context.abort(error.code, error.message[:MAX_MESSAGE_CHARACTERS])


def _tells(request: InferRequest) -> bool:
    """Whether responses come before the clip."""
    return request.progress or request.heartbeat


def _last(clip: Clip, request: InferRequest, outputs: dict[str, bytes]) -> Any:
    """The last response; that of a stream with events has one, too."""
    if not _tells(request):
        return answer(outputs, request.id, request.outputs)
    event = ClipEvent("clip", clip.stage(), clip.seconds, 0.0)
    wanted = (EVENT.name, *request.outputs) if request.outputs else ()
    return answer({EVENT.name: event.to_json(), **outputs}, request.id, wanted)
