"""What both clients share: settings, calls, errors. The twins only send and wait."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any

import grpc

from reelserve.client._channel import TlsOptions, connection, described_headers
from reelserve.client._exceptions import (
    InternalError,
    InvalidArgumentError,
    ReelserveError,
    RequestCancelledError,
    described,
    error_from_status,
)
from reelserve.client._messages import AnswerT, UnaryCall, infer_request
from reelserve.client._options import (
    ClipRequest,
    Integer,
    Real,
    check_max_retries,
    check_timeout_s,
)
from reelserve.client._retries import Retries
from reelserve.client._video import Video
from reelserve.pipeline.contract import PUBLIC_MODEL

DEFAULT_URL = "localhost:8001"
MODEL = PUBLIC_MODEL
DEFAULT_TIMEOUT_S = 600.0
"""A bound on waiting for a clip, so that nothing waits forever."""
STATUS_TIMEOUT_S = 10.0
"""A bound on calls that ask for state; a live server answers them at once."""


class BaseClient(ABC):
    """Settings of a connection to a server, its messages and its errors."""

    def __init__(
        self,
        url: str = DEFAULT_URL,
        *,
        tls: TlsOptions | None = None,
        headers: Mapping[str, str] | None = None,
        api_key: str | None = None,
        timeout_s: Real = DEFAULT_TIMEOUT_S,
        max_retries: Integer = 0,
        model: str = MODEL,
    ) -> None:
        """Settings of a connection; nothing is sent yet.

        Args:
            url: Address of the server's gRPC endpoint: `host:port` or `grpc://host:port`, and
                `grpcs://host:port` for TLS; `http://` and `https://` mean the same.
            tls: Turns TLS on and says whom to trust; `grpcs://` alone trusts whom the system does.
            headers: Names and values that every call carries.
            api_key: Sent as `authorization: Bearer …`. In plain text it is sent within this machine
                only: elsewhere the url must be TLS, or the header be given by `headers`.
            timeout_s: Bound on every `generate` and `stream` that sets none of its own, in seconds,
                above 0 and at most 10⁹.
            max_retries: How often a request that a full server has refused is sent again, where
                the call does not say. The waits grow, with jitter, are never shorter than the
                server asks for, and end within `timeout_s`. What may have been accepted is never
                sent again.
            model: Model that is asked.

        Raises:
            InvalidArgumentError: If one of them cannot be; the message names it and the limit.
        """
        if not isinstance(model, str) or not model:
            raise InvalidArgumentError(f"model is {model!r}; it must be the name of a model")
        self._connection = connection(url, tls, headers, api_key)
        self.url, self.model = url, model
        self.timeout_s = check_timeout_s(timeout_s)
        self.max_retries = check_max_retries(max_retries)
        self._prepare()

    @abstractmethod
    def _prepare(self) -> None:
        """Makes what calls need."""

    @abstractmethod
    def _is_closed(self) -> bool:
        """Whether `close` was called."""

    def __repr__(self) -> str:
        return (
            f"{type(self).__name__}({self.url!r}, tls={self._connection.tls!r}, "
            f"headers={described_headers(self._connection.metadata)}, "
            f"timeout_s={self.timeout_s:g}, max_retries={self.max_retries}, model={self.model!r})"
        )

    def _retries(self, request: ClipRequest) -> Retries:
        max_retries, timeout_s = request.max_retries, request.timeout_s
        return Retries(
            self.max_retries if max_retries is None else max_retries,
            self.timeout_s if timeout_s is None else timeout_s,
        )

    def _stream_call(self, link: Any, request: ClipRequest, timeout_s: float, events: bool) -> Any:
        """A stream that asks for a clip, on a connection; its other direction ends at once."""
        message = infer_request(self.model, request.tensors, timeout_s, events=events)
        return link.stream(message, timeout=timeout_s, metadata=self._connection.metadata)

    def _clip(self, video: Video | None) -> Video:
        """The clip that the last event of a stream held."""
        if video is None:
            raise described(InternalError, "the stream ended without a clip", self.url)
        return video

    def _read(self, call: UnaryCall[AnswerT], answer: Any) -> AnswerT:
        try:
            return call.read(answer)
        except ValueError as problem:
            error: ReelserveError = described(InternalError, str(problem), self.url)
        raise error

    def _failure(self, error: grpc.RpcError) -> ReelserveError:
        """What the caller is told of a call that failed."""
        if self._is_closed() and error.code() is grpc.StatusCode.CANCELLED:
            return self._closed_error()
        return error_from_status(error.code(), error.details() or "no message", self.url)

    def _check_open(self) -> None:
        if self._is_closed():
            raise self._closed_error() from None

    def _closed_error(self) -> ReelserveError:
        return RequestCancelledError(f"{self.url}: the client is closed; make a new one")
