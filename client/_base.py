"""What both clients share: settings, calls, errors. The twins only send and wait."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any

import grpc

from reelserve.client._addresses import Address
from reelserve.client._balancer import ANSWER_WITHIN_S, Balancer, Endpoint, Round
from reelserve.client._channel import TlsOptions, connection, described_headers
from reelserve.client._exceptions import (
    InternalError,
    InvalidArgumentError,
    NoServerError,
    ReelserveError,
    RequestCancelledError,
    UnavailableError,
    described,
    error_from_status,
)
from reelserve.client._link import Link
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
    """Settings of connections to one or more servers, their messages and errors."""

    def __init__(
        self,
        url: str | Sequence[str] = DEFAULT_URL,
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
                `grpcs://host:port` for TLS; `http://` and `https://` mean the same. Several
                servers, at most 1000, are a list of such addresses, or a string with commas
                between them; `dns:///name:port` is every address that the name has. A call goes to
                the server with the fewest calls of this client, and on to the next one where it is
                refused.
            tls: Turns TLS on and says whom to trust; `grpcs://` alone trusts whom the system does.
            headers: Names and values that every call carries.
            api_key: Sent as `authorization: Bearer …`. In plain text it is sent within this machine
                only: elsewhere the url must be TLS, or the header be given by `headers`.
            timeout_s: Bound on every `generate` and `stream` that sets none of its own, in seconds,
                above 0 and at most 10⁹.
            max_retries: How often a request that a full server has refused is sent again, where
                the call does not say. The waits grow, with jitter, are never shorter than the
                server asks for, and end within `timeout_s`. With one server, what may have been
                accepted is never sent again; with several, a clip that was lost with its server is
                drawn again by another one, which takes a retry, too.
            model: Model that is asked.

        Raises:
            InvalidArgumentError: If one of them cannot be; the message names it and the limit.
        """
        if not isinstance(model, str) or not model:
            raise InvalidArgumentError(f"model is {model!r}; it must be the name of a model")
        self._connection = connection(url, tls, headers, api_key)
        self.url, self.several = self._connection.addresses.shown, self._connection.several
        self.model = model
        self.timeout_s = check_timeout_s(timeout_s)
        self.max_retries = check_max_retries(max_retries)
        self._prepare()

    @abstractmethod
    def _prepare(self) -> None:
        """Makes what calls need."""

    @abstractmethod
    def _is_closed(self) -> bool:
        """Whether `close` was called."""

    @abstractmethod
    def _drop(self, link: Link) -> None:
        """Uses a connection for no further call; those that are on it go on."""

    @abstractmethod
    def _failed(self, link: Link, failure: ReelserveError) -> None:
        """A call on a connection has failed."""

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

    def _stream_call(self, link: Link, request: ClipRequest, timeout_s: float, events: bool) -> Any:
        """A stream that asks for a clip, on a connection; its other direction ends at once."""
        message = infer_request(self.model, request.tensors, timeout_s, events=events)
        return link.stream(message, timeout=timeout_s, metadata=self._connection.metadata)

    def _clip(self, video: Video | None) -> Video:
        """The clip that the last event of a stream held."""
        if video is None:
            raise described(InternalError, "the stream ended without a clip", self.url)
        return video

    def _read(self, call: UnaryCall[AnswerT], answer: Any, address: Address) -> AnswerT:
        try:
            return call.read(answer)
        except ValueError as problem:
            error: ReelserveError = described(InternalError, str(problem), address.shown)
        raise error

    def _failure(self, error: grpc.RpcError, address: Address) -> ReelserveError:
        """What the caller is told of a call that failed."""
        if self._is_closed() and error.code() is grpc.StatusCode.CANCELLED:
            return self._closed_error()
        return error_from_status(error.code(), error.details() or "no message", address.shown)

    def _pass_over(self, link: Link, one: Round, error: grpc.RpcError) -> None:
        """Leaves a server that has not answered to the next round; raises what another one said."""
        if error.code() is grpc.StatusCode.DEADLINE_EXCEEDED:
            self._drop(link)
        failure = self._failure(error, link.address)
        self._failed(link, failure)
        if not isinstance(failure, (NoServerError, UnavailableError)):
            raise failure from None
        one.failures[link.address.target] = failure

    def _unanswered(self, balancer: Balancer, server: Endpoint, error: grpc.RpcError) -> None:
        """Notes how a server that was asked whether it takes requests has not said so."""
        failure = self._failure(error, server.address)
        if error.code() is grpc.StatusCode.DEADLINE_EXCEEDED:
            words = f"no answer within {ANSWER_WITHIN_S:g} s"
            failure = described(NoServerError, words, server.address.shown)
        if isinstance(failure, NoServerError):
            balancer.unanswered(server, failure)
        else:
            # Whoever refuses the question lives, and says to a request why it refuses that.
            balancer.answered(server, True)

    def _check_open(self) -> None:
        if self._is_closed():
            raise self._closed_error() from None

    def _closed_error(self) -> ReelserveError:
        return RequestCancelledError(f"{self.url}: the client is closed; make a new one")
