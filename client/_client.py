"""The blocking client."""

from __future__ import annotations

import os
import threading
import weakref
from typing import Any

import grpc

from reelserve.client._addresses import MAX_ADDRESSES, Address
from reelserve.client._balancer import ANSWER_WITHIN_S as READY_WITHIN_S
from reelserve.client._balancer import Balancer, Endpoint, Round
from reelserve.client._base import STATUS_TIMEOUT_S, BaseClient
from reelserve.client._capabilities import Capabilities, capabilities_call
from reelserve.client._exceptions import ReelserveError
from reelserve.client._link import Link
from reelserve.client._messages import (
    AnswerT,
    UnaryCall,
    model_ready_call,
    server_live_call,
    server_ready_call,
)
from reelserve.client._options import ClipRequest, clip_request, takes_options
from reelserve.client._retries import Retries
from reelserve.client._silence import ANSWER_WITHIN_S, UNANSWERED
from reelserve.client._statistics import StageStatistics, statistics_call, summed
from reelserve.client._stream import Stream
from reelserve.client._video import Video

_clients: weakref.WeakSet[Client] = weakref.WeakSet()
_of_parent: list[Balancer] = []
"""Connections of the process that this one was forked from. They are kept: closing one would wait
for threads that are not here."""


class Client(BaseClient):
    """Connections to one or more servers; a context manager.

    Threads may share it. In a process that is forked it connects anew; streams stay with the
    process that began them.
    """

    def _prepare(self) -> None:
        self._closed = threading.Event()
        self._balancer: Balancer | None = None
        self._after_fork()
        _clients.add(self)

    def _after_fork(self) -> None:
        """Begins without a connection, and with a lock that no thread of the parent holds."""
        # A call that starts on a channel that is just being closed ends the process.
        self._starting = threading.Lock()
        if self._balancer is not None:
            _of_parent.append(self._balancer)
        self._balancer = None

    @takes_options(clip_request)
    def generate(self, request: ClipRequest) -> Video:
        """Draws a clip and waits for it.

        Raises:
            ReelserveError: One of its other subclasses, see there.
        """
        video = None
        with Stream(self, request, events=False) as stream:
            for event in stream:
                video = event.video
        return self._clip(video)

    @takes_options(clip_request)
    def stream(self, request: ClipRequest) -> Stream:
        """Draws a clip and tells how far it is; the last event holds it.

        `for event in client.stream("a red circle"): …`. Leaving the loop, or closing the stream,
        cancels the request; errors of the server come with the events.
        """
        return Stream(self, request)

    def is_ready(self) -> bool:
        """Whether the server answers and serves the model.

        Raises:
            ReelserveError: If the client is closed.
        """
        self._check_open()
        try:
            return self._ask(server_ready_call()) and self._ask(model_ready_call(self.model))
        except ReelserveError:
            return False

    def statistics(self) -> dict[str, StageStatistics]:
        """Stage to the counters that Triton keeps of it, over all clients and servers.

        Raises:
            ReelserveError: If the server does not answer.
        """
        return summed(self._ask_servers(statistics_call()))

    def capabilities(self) -> Capabilities:
        """The served checkpoint: limits and defaults of its requests, and what it can draw.

        Raises:
            ReelserveError: If the server does not answer, or is a Triton without reelserve's
                front end, which does not know them.
        """
        return self._ask(capabilities_call(self.model))

    def close(self) -> None:
        """Closes the connection; requests in flight are cancelled."""
        with self._starting:
            self._closed.set()
            for link in [] if self._balancer is None else self._balancer.close():
                link.close()

    def _ask(self, call: UnaryCall[AnswerT]) -> AnswerT:
        """The answer of any server."""
        return (self._ask_servers(call, most=1))[0]

    def _ask_servers(self, call: UnaryCall[AnswerT], most: int = MAX_ADDRESSES) -> list[AnswerT]:
        """Answers of servers, at least one."""
        one, retries, answers = Round(), Retries(0, STATUS_TIMEOUT_S), list[AnswerT]()
        while len(answers) < most and (link := self._choose(one, retries)) is not None:
            send = getattr(link.stub, call.method)
            try:
                answer = send(
                    call.message, timeout=STATUS_TIMEOUT_S, metadata=self._connection.metadata
                )
            except grpc.RpcError as error:
                self._pass_over(link, one, error)
            except ValueError:
                # gRPC's own, where the channel was closed meanwhile.
                self._check_open()
                raise
            else:
                answers.append(self._read(call, answer, link.address))
                one.answered.add(link.address.target)
            finally:
                self._forget(link)
        if not answers:
            raise self._verdict(one)
        return answers

    def _find(self, one: Round) -> Link | float | None:
        with self._starting:
            balancer = self._connected()
            for server in balancer.to_ask(one):
                self._ask_whether_ready(balancer, server)
        return balancer.choose(one)

    def _choose(self, one: Round, retries: Retries) -> Link | None:
        retries.remaining_s()
        while True:
            version = self._open_balancer().version
            found = self._find(one)
            if found is None or isinstance(found, Link):
                return found
            left_s = retries.remaining_s()
            if not left_s:
                raise self._open_balancer().late(retries.timeout_s)
            self._open_balancer().wait(min(found, left_s), version)

    def _ask_whether_ready(self, balancer: Balancer, server: Endpoint) -> None:
        """Asks aside; the lock is held."""

        def answered(call: Any) -> None:
            try:
                ready = bool(call.result().ready)
            except grpc.FutureCancelledError:
                balancer.unasked(server)
            except grpc.RpcError as error:
                self._unanswered(balancer, server, error)
            else:
                balancer.answered(server, ready)

        message, metadata = server_ready_call().message, self._connection.metadata
        ask = server.link.stub.ServerReady.future
        ask(message, timeout=READY_WITHIN_S, metadata=metadata).add_done_callback(answered)

    def _verdict(self, one: Round) -> ReelserveError:
        return self._open_balancer().verdict(one)

    def _heard(self, link: Link) -> None:
        if self._balancer is not None:
            self._balancer.heard(link)

    def _failed(self, link: Link, failure: ReelserveError) -> None:
        if self._balancer is not None:
            self._balancer.failed(link, failure)

    def _send(self, link: Link, request: ClipRequest, timeout_s: float, *, events: bool) -> Any:
        try:
            with self._starting:
                self._check_open()
                call = self._stream_call(link, request, timeout_s, events)
        except BaseException:
            self._forget(link)
            raise
        if not call.add_callback(lambda: self._forget(link)):
            self._forget(link)
        return call

    def _forget(self, link: Link) -> None:
        if self._balancer is not None:
            self._balancer.ended(link)

    def _lives(self, link: Link) -> bool:
        """Whether the server answers on a connection."""
        try:
            link.stub.ServerLive(
                server_live_call().message,
                timeout=ANSWER_WITHIN_S,
                metadata=self._connection.metadata,
            )
        except grpc.RpcError as error:
            return error.code() not in UNANSWERED
        except ValueError:
            # Closed meanwhile, which ends the stream, too.
            return True
        return True

    def _drop(self, link: Link) -> None:
        """Uses a connection for no further call; those that are on it go on."""
        with self._starting:
            if self._balancer is not None and not self._is_closed():
                self._balancer.renew(link)

    def _open_balancer(self) -> Balancer:
        with self._starting:
            return self._connected()

    def _connected(self) -> Balancer:
        """The connections, made where there are none; the lock is held."""
        self._check_open()
        if self._balancer is None:
            self._balancer = Balancer(self._connection, self._open)
        return self._balancer

    def _open(self, address: Address) -> Link:
        return Link(address, self._connection.open(grpc, address))

    def _is_closed(self) -> bool:
        return self._closed.is_set()

    def _pause(self, seconds: float) -> None:
        """Waits between two attempts; closing the client ends it."""
        self._closed.wait(seconds)
        self._check_open()

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()


def _forked() -> None:
    for client in list(_clients):
        client._after_fork()


os.register_at_fork(after_in_child=_forked)
