"""The blocking client."""

from __future__ import annotations

import os
import threading
import weakref
from typing import Any

import grpc

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
from reelserve.client._silence import ANSWER_WITHIN_S, UNANSWERED
from reelserve.client._statistics import StageStatistics, statistics_call
from reelserve.client._stream import Stream
from reelserve.client._video import Video

_clients: weakref.WeakSet[Client] = weakref.WeakSet()
_of_parent: list[Link] = []
"""Connections of the process that this one was forked from. They are kept: closing one would wait
for threads that are not here."""


class Client(BaseClient):
    """A connection to a server; a context manager.

    Threads may share it. In a process that is forked it connects anew; streams stay with the
    process that began them.
    """

    def _prepare(self) -> None:
        self._closed = threading.Event()
        self._link: Link | None = None
        self._after_fork()
        _clients.add(self)

    def _after_fork(self) -> None:
        """Begins without a connection, and with a lock that no thread of the parent holds."""
        # A call that starts on a channel that is just being closed ends the process.
        self._starting = threading.Lock()
        if self._link is not None:
            _of_parent.append(self._link)
        self._link = None

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
        """Stage to the counters that Triton keeps of it, over all clients.

        Raises:
            ReelserveError: If the server does not answer.
        """
        return self._ask(statistics_call())

    def capabilities(self) -> Capabilities:
        """The served checkpoint with the limits and defaults of its requests.

        Raises:
            ReelserveError: If the server does not answer, or is a Triton without reelserve's
                front end, which does not know them.
        """
        return self._ask(capabilities_call(self.model))

    def close(self) -> None:
        """Closes the connection; requests in flight are cancelled."""
        with self._starting:
            self._closed.set()
            if self._link is not None:
                self._link.channel.close()

    def _ask(self, call: UnaryCall[AnswerT]) -> AnswerT:
        link = self._open_link()
        send = getattr(link.stub, call.method)
        try:
            answer = send(
                call.message, timeout=STATUS_TIMEOUT_S, metadata=self._connection.metadata
            )
        except grpc.RpcError as error:
            if error.code() is grpc.StatusCode.DEADLINE_EXCEEDED:
                self._drop(link)
            raise self._failure(error) from None
        except ValueError:
            # gRPC's own, where the channel was closed meanwhile.
            self._check_open()
            raise
        return self._read(call, answer)

    def _send(self, request: ClipRequest, timeout_s: float, *, events: bool) -> tuple[Any, Link]:
        with self._starting:
            link = self._connected()
            return self._stream_call(link, request, timeout_s, events), link

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
            if self._link is link:
                self._link = None

    def _open_link(self) -> Link:
        with self._starting:
            return self._connected()

    def _connected(self) -> Link:
        """The connection, made where there is none; the lock is held."""
        self._check_open()
        if self._link is None:
            self._link = Link(self._connection.open(grpc))
        return self._link

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
