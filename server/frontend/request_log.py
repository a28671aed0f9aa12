"""One line of the log, and one trace, for every request for a clip."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import math
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Protocol

import grpc

from reelserve.pipeline.contract import INFO
from reelserve.pipeline.request import VideoRequest
from reelserve.server.frontend.call_errors import CallError
from reelserve.server.frontend.clip import Clip
from reelserve.server.frontend.doors import Headers
from reelserve.server.frontend.line_limit import LineLimit

REQUESTS_LOGGER = "reelserve.requests"
"""Name of the logger; the attribute `fields` of a record holds what is known of the request."""
MAX_TEXT_CHARACTERS = 1000
"""Longest id, error or prompt; the rest is cut off."""
SECONDS_DECIMALS = 4
DEADLINE_SLACK_S = 0.1
"""gRPC may end a call for its deadline a little before it would be seen to have passed."""

_log = logging.getLogger(REQUESTS_LOGGER)


@dataclass
class CallRecord:
    """What becomes known of a request while it is answered; moments on the monotonic clock.

    Args:
        method: `ModelInfer` or `ModelStreamInfer`.
        metadata: Headers of the call.
        began: When it came.
        id: The caller's own.
        key: Name of the caller's API key; empty where none is asked for.
        deadline: When the caller's time is up.
        checked: The request with its defaults.
        seed: The caller's; None leaves it to the server.
        clip: Its clip; None for a request that was refused.
        shared: How another request's clip answers it: `joined` or `cached`; else empty.
        code: How it ended.
        error: In words, unless it is OK.
        ended: When.
    """

    method: str
    metadata: Headers
    began: float
    id: str = ""
    key: str = ""
    deadline: float = math.inf
    checked: VideoRequest | None = None
    seed: int | None = None
    clip: Clip | None = None
    shared: str = ""
    code: grpc.StatusCode = grpc.StatusCode.OK
    error: str = ""
    ended: float = 0.0

    @property
    def own_clip(self) -> Clip | None:
        """The clip that was drawn for it."""
        return None if self.shared else self.clip

    def end(self, error: BaseException | None) -> None:
        """Notes how it has ended."""
        self.ended = time.monotonic()
        if isinstance(error, CallError):
            self.code, self.error = error.code, error.message
        elif isinstance(error, asyncio.CancelledError):
            late = self.ended >= self.deadline - DEADLINE_SLACK_S
            status = grpc.StatusCode
            self.code = status.DEADLINE_EXCEEDED if late else status.CANCELLED
            self.error = "the deadline has passed" if late else "the caller has left"
        elif error is not None:
            self.code = grpc.StatusCode.INTERNAL
            self.error = CallError.internal(error).message if isinstance(error, Exception) else ""
        if self.seed is None and self.code is grpc.StatusCode.OK and self.clip is not None:
            self.seed = json.loads(self.clip.result.result()[INFO.name]).get("seed")

    def described(self, *, prompts: bool) -> dict[str, Any]:
        """What is known of it by name, in JSON's own types.

        Args:
            prompts: Whether the prompts are told, too.
        """
        known: dict[str, Any] = {"id": self.id, "key": self.key, "method": self.method}
        known["code"] = self.code.name
        known["seconds"] = round(self.ended - self.began, SECONDS_DECIMALS)
        if self.own_clip is not None:
            known["waited_s"] = self.own_clip.waited_s()
        if (checked := self.checked) is not None:
            known.update(
                frames=checked.num_frames,
                height=checked.height,
                width=checked.width,
                steps=checked.num_inference_steps,
                seed=self.seed,
                fps=checked.fps,
                priority=checked.priority,
            )
        if self.clip is not None:
            known.update(clip=self.clip.key, triton=self.clip.place.load.name, shared=self.shared)
            if self.code is not grpc.StatusCode.OK:
                known["stage"] = self.clip.stage()
        known["error"] = self.error
        if prompts and checked is not None:
            known.update(prompt=checked.prompt, negative_prompt=checked.negative_prompt)
        return {name: _short(value) for name, value in known.items() if value not in (None, "")}


class Tracer(Protocol):
    """Who makes a trace of a request."""

    def trace(self, record: CallRecord, described: dict[str, Any]) -> str:
        """Takes a request that has ended; gives the id of its trace, empty where there is none."""


class RequestLog:
    """Tells how every request has ended; `tracer` may be set later.

    Requests that take no place cost a caller nothing, so a storm of them leaves some lines of each
    kind, and then how many others there were.

    Args:
        prompts: Whether prompts are told, too.
        tracer: Who makes traces; None makes none.
    """

    def __init__(self, *, prompts: bool = False, tracer: Tracer | None = None) -> None:
        self._prompts, self.tracer = prompts, tracer
        self._limit = LineLimit()

    @contextlib.contextmanager
    def watch(self, method: str, metadata: Headers) -> Iterator[CallRecord]:
        """Follows a request to its end, of which an exception tells.

        Args:
            method: Name of the method.
            metadata: Headers of the call.
        """
        record = CallRecord(method, metadata, time.monotonic())
        try:
            yield record
        except BaseException as error:
            self._ended(record, error)
            raise
        else:
            self._ended(record, None)

    def refused_at_door(self) -> None:
        """A call was not let in for want of a key, before its message was read."""
        code = grpc.StatusCode.UNAUTHENTICATED.name
        if self._limit.takes((code, "")):
            _log.info("request", extra={"fields": {"code": code}})

    def tell_left_out(self, *, all_of_them: bool = False) -> None:
        """Tells how many lines were left out; to be called all the time.

        Args:
            all_of_them: Whether to tell before the time has passed, too.
        """
        for (code, key), lines, seconds in self._limit.ended(all_of_them=all_of_them):
            fields = {"code": code, "key": key, "count": lines, "within_s": round(seconds, 1)}
            known = {name: value for name, value in fields.items() if value != ""}
            _log.info("requests without a line", extra={"fields": known})

    def _ended(self, record: CallRecord, error: BaseException | None) -> None:
        try:
            self._tell(record, error)
        except Exception:
            # Neither a line nor a trace is worth a clip.
            _log.exception("a request cannot be told")

    def _tell(self, record: CallRecord, error: BaseException | None) -> None:
        record.end(error)
        own = record.own_clip is not None
        if not own and not self._limit.takes((record.code.name, record.key)):
            return
        if isinstance(error, Exception) and not isinstance(error, CallError):
            _log.error("a request has failed by a mistake of the server", exc_info=error)
        fields = record.described(prompts=self._prompts)
        if self.tracer is not None and (trace := self.tracer.trace(record, fields)):
            fields["trace_id"] = trace
        _log.info("request", extra={"fields": fields})


def _short(value: Any) -> Any:
    if isinstance(value, str) and len(value) > MAX_TEXT_CHARACTERS:
        return f"{value[:MAX_TEXT_CHARACTERS]}…"
    return value
