"""OpenTelemetry traces of requests, sent by OTLP over gRPC.

A request's spans are made when it has ended, with the moments that its stages have told: nothing
is carried through the call, and a collector that is dead or slow is met by a thread alone.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import grpc
from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import SERVICE_NAME, SERVICE_VERSION, Resource
from opentelemetry.sdk.trace import ReadableSpan, SpanProcessor, TracerProvider
from opentelemetry.sdk.trace.export import (
    BatchSpanProcessor,
    SpanExporter,
    SpanExportResult,
)
from opentelemetry.trace import Span, SpanKind, Status, StatusCode, set_span_in_context
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

import reelserve
from reelserve.server.frontend.clip import DENOISING, Clip, stage_periods
from reelserve.server.frontend.doors import Headers
from reelserve.server.frontend.request_log import CallRecord
from reelserve.server.frontend.upstream import SERVICE
from reelserve.server.progress import Stepped

NAME = "reelserve"
"""Name of the service, unless the environment gives one (OTEL_SERVICE_NAME)."""
MAX_PENDING = 2048
"""Spans that wait to be sent; later ones are dropped."""
BATCH = 512
DELAY_MS = 1000
"""Longest time that a span waits for others to be sent with."""
CLOSE_S, GIVE_UP_S = 3.0, 1.0
"""How long the last spans may take to be sent, and their thread to see that it must end."""
NANOSECONDS = 1_000_000_000
CONTEXT_HEADERS = ("traceparent", "tracestate")
EXPORTER_LOGGER = "opentelemetry.exporter.otlp.proto.grpc.exporter"
OUR_ERRORS = frozenset(
    getattr(grpc.StatusCode, name)
    for name in (
        *("UNKNOWN", "DEADLINE_EXCEEDED", "UNIMPLEMENTED", "INTERNAL", "UNAVAILABLE", "DATA_LOSS"),
    )
)
"""Statuses that are errors of a server in the semantic conventions of RPC."""

_log = logging.getLogger(__name__)


class Tracing:
    """Makes the spans of requests.

    Args:
        endpoint: Address of the collector, as `check_endpoint` gives it.
        dropped: Told of spans that are not sent: why (`full`, `failed`), and how many.

    Raises:
        ValueError: If a variable of the environment is not what it must be.
    """

    def __init__(self, endpoint: str, dropped: Callable[[str, int], None]) -> None:
        self._exporter = _CountedExporter(endpoint, dropped)
        self._provider = TracerProvider(resource=_resource(), shutdown_on_exit=False)
        self._provider.add_span_processor(self._exporter.processor)
        self._tracer = self._provider.get_tracer(NAME, reelserve.__version__)
        self._propagator = TraceContextTextMapPropagator()

    def trace(self, record: CallRecord, described: Mapping[str, Any]) -> str:
        """Takes a request that has ended; gives the id of its trace, empty if it is not sampled."""
        epoch = time.time() - time.monotonic()
        span = self._tracer.start_span(
            f"{SERVICE}/{record.method}",
            context=self._propagator.extract(_context_headers(record.metadata)),
            kind=SpanKind.SERVER,
            attributes=_attributes(record, described),
            start_time=_nanoseconds(epoch + record.began),
        )
        if not span.is_recording():
            return ""
        if record.code in OUR_ERRORS:
            span.set_status(Status(StatusCode.ERROR, record.error))
        if record.own_clip is not None:
            self._add_stages(span, record.own_clip, epoch)
        span.end(_nanoseconds(epoch + record.ended))
        return f"{span.get_span_context().trace_id:032x}"

    def close(self) -> None:
        """Sends what is left, for `CLOSE_S` at most; to be called in a thread."""
        ending = threading.Thread(target=self._provider.shutdown, daemon=True)
        ending.start()
        ending.join(CLOSE_S)
        # A call to the collector may go on.
        self._exporter.shutdown()
        ending.join(GIVE_UP_S)
        self._exporter.count_rest()

    def _add_stages(self, parent: Span, clip: Clip, epoch: float) -> None:
        """A child for each stage that has ended; denoising steps are events."""
        entries = clip.entries()
        steps = [entry for entry in entries if isinstance(entry, Stepped)]
        context = set_span_in_context(parent)
        for period in stage_periods(entries, clip.accepted):
            span = self._tracer.start_span(
                period.name,
                context=context,
                attributes={"reelserve.waited_s": round(max(0.0, period.began - period.since), 6)},
                start_time=_nanoseconds(epoch + period.began),
            )
            if DENOISING in period.name.split("+"):
                _add_steps(span, steps, epoch)
                steps = []
            span.end(_nanoseconds(epoch + period.ended))
        # Of a clip that was dropped while it was denoised.
        _add_steps(parent, steps, epoch)


class _CountedExporter(SpanExporter):  # type: ignore[misc]
    """Sends spans, and counts those that are not sent.

    The library drops spans without a word where its queue is full, so the queue is bounded here.
    """

    def __init__(self, endpoint: str, dropped: Callable[[str, int], None]) -> None:
        self._endpoint, self._dropped = endpoint, dropped
        self._lock, self._pending, self._failing = threading.Lock(), 0, False
        self._shut, self._counts = False, True
        self._reason = _LastWords()
        logging.getLogger(EXPORTER_LOGGER).addFilter(self._reason)
        self._sender = OTLPSpanExporter(endpoint, insecure=endpoint.startswith("http://"))
        self.processor = _BoundedProcessor(self)

    def takes(self) -> bool:
        """Whether there is room for one more span; it is counted either way."""
        with self._lock:
            room = self._pending < MAX_PENDING
            self._pending += room
        if not room:
            self._dropped("full", 1)
        return room

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        try:
            result = self._sender.export(spans)
        except Exception as error:
            self._reason.words = str(error)
            result = SpanExportResult.FAILURE
        with self._lock:
            if not self._counts:
                return result
            self._pending -= len(spans)
        failed = result is not SpanExportResult.SUCCESS
        if failed:
            self._dropped("failed", len(spans))
        if failed and not self._failing:
            _log.warning(
                "%s takes no spans, which are dropped and counted: %s",
                self._endpoint,
                self._reason.words,
            )
        elif self._failing and not failed:
            _log.warning("%s takes spans again", self._endpoint)
        self._failing = failed
        return result

    def shutdown(self) -> None:
        with self._lock:
            before, self._shut = self._shut, True
        if not before:
            self._sender.shutdown()

    def count_rest(self) -> None:
        """Counts what was not sent before the end as dropped; nothing is counted afterwards."""
        with self._lock:
            left, self._pending, self._counts = self._pending, 0, False
        if left:
            self._dropped("failed", left)
            _log.warning("%d spans were not sent to %s before the end", left, self._endpoint)
        logging.getLogger(EXPORTER_LOGGER).removeFilter(self._reason)


class _BoundedProcessor(SpanProcessor):  # type: ignore[misc]
    """Hands spans to a thread that sends them, as many as the exporter has room for."""

    def __init__(self, exporter: _CountedExporter) -> None:
        self._exporter = exporter
        self._batches = BatchSpanProcessor(
            exporter,
            max_queue_size=MAX_PENDING,
            schedule_delay_millis=DELAY_MS,
            max_export_batch_size=BATCH,
        )

    def on_end(self, span: ReadableSpan) -> None:
        context = span.context
        if context is not None and context.trace_flags.sampled and self._exporter.takes():
            self._batches.on_end(span)

    def shutdown(self) -> None:
        self._batches.shutdown()


class _LastWords(logging.Filter):
    """Keeps what the library says last and lets none of it pass: it says so at every attempt."""

    words = ""

    def filter(self, record: logging.LogRecord) -> bool:
        """Never lets a record pass."""
        self.words = record.getMessage()
        return False


def _resource() -> Resource:
    resource = Resource.create({SERVICE_VERSION: reelserve.__version__})
    if str(resource.attributes[SERVICE_NAME]).startswith("unknown_service"):
        resource = resource.merge(Resource({SERVICE_NAME: NAME}))
    return resource


def _context_headers(metadata: Headers) -> dict[str, str]:
    """The caller's trace; what is malformed begins a new one."""
    carried: dict[str, str] = {}
    for name, value in metadata or ():
        if name in CONTEXT_HEADERS and isinstance(value, str):
            # A list may come in several headers; two of `traceparent` are none.
            carried[name] = f"{carried[name]},{value}" if name in carried else value
    return carried


def _attributes(record: CallRecord, described: Mapping[str, Any]) -> dict[str, Any]:
    """Semantic conventions of RPC, and what the log says of the request."""
    known = {
        "rpc.system.name": "grpc",
        "rpc.method": f"{SERVICE}/{record.method}",
        "rpc.response.status_code": record.code.name,
    }
    if record.code in OUR_ERRORS:
        known["error.type"] = record.code.name
    left_out = ("method", "code")
    ours = {f"reelserve.{k}": v for k, v in described.items() if k not in left_out}
    return {**known, **ours}


def _add_steps(span: Span, steps: Sequence[Stepped], epoch: float) -> None:
    for step in steps:
        attributes = {
            "reelserve.step": step.step,
            "reelserve.seconds": round(step.ended - step.began, 6),
        }
        span.add_event("step", attributes, _nanoseconds(epoch + step.ended))


def _nanoseconds(seconds: float) -> int:
    return int(seconds * NANOSECONDS)
