"""Every error that the client raises.

    ReelserveError
    ├── NoServerError          nothing answers at that address, or the connection broke
    ├── NotReadyError          the server runs, the model is missing or still loading
    ├── InvalidArgumentError   the request was refused: field, value, limit
    ├── UnavailableError       over capacity; the same request may succeed later
    ├── DeadlineExceededError  no answer within `timeout_s`, or refused since there would be none
    ├── RequestCancelledError  cancelled by this side or by the server
    ├── AccessDeniedError      the server, or a proxy before it, wants credentials
    ├── InternalError          a stage failed
    └── MissingExtraError      a package is not installed that a method of `Video` needs

A message names the server and ends with what to do.
"""

from __future__ import annotations

import re
from typing import TypeVar

import grpc


class ReelserveError(Exception):
    """Base of every error of this client."""


class NoServerError(ReelserveError, ConnectionError):
    """Nothing answers at the address, or the connection broke.

    Attributes:
        not_sent: Whether there was no connection, so that no server has seen the request.
    """

    not_sent: bool = False


class NotReadyError(ReelserveError):
    """The server runs but does not serve the model: it is missing or still loading."""


class InvalidArgumentError(ReelserveError, ValueError):
    """The request was refused before any work; the message names field, value and limit."""


class UnavailableError(ReelserveError):
    """The server is over capacity; the same request may succeed later.

    Attributes:
        retry_after_s: Seconds that the server asks to wait. None if it does not say, and then the
            request may have been accepted before it failed.
    """

    retry_after_s: float | None = None


class DeadlineExceededError(ReelserveError, TimeoutError):
    """There was no answer within `timeout_s`."""


class RequestCancelledError(ReelserveError):
    """The request was cancelled, by this side or by the server."""


class AccessDeniedError(ReelserveError):
    """The server, or a proxy in front of it, refuses this caller."""


class InternalError(ReelserveError):
    """A stage failed, or the answer could not be read."""


class MissingExtraError(ReelserveError, ImportError):
    """A package is not installed; the message names the extra that brings it."""


ErrorT = TypeVar("ErrorT", bound=ReelserveError)

ERROR_BY_STATUS: dict[grpc.StatusCode, type[ReelserveError]] = {
    grpc.StatusCode.CANCELLED: RequestCancelledError,
    grpc.StatusCode.UNKNOWN: InternalError,
    grpc.StatusCode.INVALID_ARGUMENT: InvalidArgumentError,
    grpc.StatusCode.DEADLINE_EXCEEDED: DeadlineExceededError,
    grpc.StatusCode.NOT_FOUND: NotReadyError,
    grpc.StatusCode.ALREADY_EXISTS: InternalError,
    grpc.StatusCode.PERMISSION_DENIED: AccessDeniedError,
    grpc.StatusCode.RESOURCE_EXHAUSTED: UnavailableError,
    grpc.StatusCode.FAILED_PRECONDITION: NotReadyError,
    grpc.StatusCode.ABORTED: UnavailableError,
    grpc.StatusCode.OUT_OF_RANGE: InvalidArgumentError,
    # Something that does not know Triton's protocol listens there.
    grpc.StatusCode.UNIMPLEMENTED: NoServerError,
    grpc.StatusCode.INTERNAL: InternalError,
    grpc.StatusCode.UNAVAILABLE: UnavailableError,
    grpc.StatusCode.DATA_LOSS: InternalError,
    grpc.StatusCode.UNAUTHENTICATED: AccessDeniedError,
}

ADVICE: dict[type[ReelserveError], str] = {
    NoServerError: (
        "check the address, and whether it wants TLS (grpcs://), or start a server with "
        "`make serve`"
    ),
    NotReadyError: "wait until the server is ready, and see its log for models that did not load",
    InvalidArgumentError: "change the request",
    UnavailableError: "try again later, or with fewer requests at a time",
    DeadlineExceededError: "allow more seconds with timeout_s, or ask for less",
    RequestCancelledError: "send the request again",
    AccessDeniedError: "ask whoever runs the server for access",
    InternalError: "see the server's log",
    MissingExtraError: "install it with `pip install 'reelserve[video]'`",
}

_NOT_CONNECTED = ("failed to connect", "dns resolution failed", "errors resolving")
_TRANSPORT_FAILURES = (
    *_NOT_CONNECTED,
    "connection refused",
    "connection reset",
    "socket closed",
    "broken pipe",
    "goaway",
    "too many pings",
    "trying to connect an http1.x server",
)
"""gRPC reports a missing server with the status that a full queue has, UNAVAILABLE. These are
its own words in that case; Triton uses none of them."""

_CUT_WORDS = re.compile(r"http2 header with status: 50[234]|received rst_stream|stream removed")
"""gRPC's own words where something between here and the server ended a call."""
_CUT = (
    grpc.StatusCode.UNAVAILABLE,
    grpc.StatusCode.UNKNOWN,
    grpc.StatusCode.INTERNAL,
    grpc.StatusCode.CANCELLED,
    grpc.StatusCode.RESOURCE_EXHAUSTED,
)
"""Statuses that gRPC gives such a call."""
_CUT_ADVICE = (
    "see the network, and where a proxy is before the server, whether it reaches it and how long "
    "it waits for an answer; then send the request again"
)

_TLS_FAILURES = ("handshake", "certificate", "hostname verification")
"""gRPC's own words where the two sides do not agree on TLS."""
_TLS_ADVICE = (
    "check whether it speaks TLS, who signed its certificate (ca_file) and for which name "
    "(server_name)"
)

_MODEL_FAILURES = ("unknown model", "no available versions", "is not ready")
"""Triton's words for a model that it does not serve, whatever their status."""


_TOO_LARGE = "received message larger than max"
"""gRPC's words for a request over the server's limit, with the status of a server that is full."""

_RETRY_AFTER = re.compile(r"; retry after (?P<seconds>\d+(?:\.\d+)?) s$")
"""Ends our server's refusal of a request that it has not accepted, and no other message."""


def error_from_status(status: grpc.StatusCode | None, details: str, url: str) -> ReelserveError:
    """Turns what gRPC says into an error of this client.

    Args:
        status: Status of the call; None if it failed before it was sent.
        details: The server's or gRPC's own message.
        url: `host:port` of the server.
    """
    kind = ERROR_BY_STATUS[status] if status else InternalError
    text = details.lower()
    if any(words in text for words in _MODEL_FAILURES):
        kind = NotReadyError
    elif _TOO_LARGE in text:
        kind = InvalidArgumentError
    elif status in _CUT and _CUT_WORDS.search(text):
        return described(NoServerError, details, url, _CUT_ADVICE)
    elif status is grpc.StatusCode.UNAVAILABLE and any(
        words in text for words in _TRANSPORT_FAILURES
    ):
        kind = NoServerError
    tls = kind is NoServerError and any(words in text for words in _TLS_FAILURES)
    error = described(kind, details, url, _TLS_ADVICE if tls else None)
    if isinstance(error, NoServerError):
        error.not_sent = any(words in text for words in _NOT_CONNECTED)
    hint = _RETRY_AFTER.search(details) if status is grpc.StatusCode.UNAVAILABLE else None
    if hint and isinstance(error, UnavailableError):
        error.retry_after_s = float(hint["seconds"])
    return error


def error_from_text(text: str, url: str) -> ReelserveError:
    """Turns an error inside a stream, which begins with its status, into one of this client.

    Args:
        text: Message of the server.
        url: `host:port` of the server.
    """
    name, colon, details = text.partition(": ")
    status = grpc.StatusCode.__members__.get(name) if colon else None
    return error_from_status(status, details if status else text, url)


def described(kind: type[ErrorT], details: str, url: str, advice: str | None = None) -> ErrorT:
    """An error whose message holds `details`, the server and what to do."""
    # A refusal is the caller's to read: what matters comes first, where it stays in sight.
    if kind is InvalidArgumentError:
        return kind(details)
    return kind(f"{url}: {details.rstrip('. ')}; {advice or ADVICE[kind]}")
