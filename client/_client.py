"""The blocking client."""

from __future__ import annotations

import threading
from typing import Any

import grpc
from tritonclient.grpc import service_pb2_grpc

from reelserve.client._base import STATUS_TIMEOUT_S, BaseClient
from reelserve.client._capabilities import Capabilities, capabilities_call
from reelserve.client._exceptions import ReelserveError
from reelserve.client._messages import (
    AnswerT,
    UnaryCall,
    clip_call,
    model_ready_call,
    server_ready_call,
)
from reelserve.client._options import ClipRequest, clip_request, takes_options
from reelserve.client._statistics import StageStatistics, statistics_call
from reelserve.client._stream import Stream
from reelserve.client._video import Video


class Client(BaseClient):
    """A connection to a server; a context manager. Threads may share it."""

    def _prepare(self) -> None:
        self._closed = threading.Event()
        # A call that starts on a channel that is just being closed ends the process.
        self._starting = threading.Lock()
        self._channel = self._connection.open(grpc)
        self._stub = service_pb2_grpc.GRPCInferenceServiceStub(self._channel)

    @takes_options(clip_request)
    def generate(self, request: ClipRequest) -> Video:
        """Draws a clip and waits for it.

        Raises:
            ReelserveError: One of its other subclasses, see there.
        """
        retries = self._retries(request)
        while True:
            timeout_s = retries.remaining_s()
            try:
                return self._ask(clip_call(self.model, request.tensors, timeout_s), timeout_s)
            except ReelserveError as error:
                self._pause(retries.next_wait_s(error))

    @takes_options(clip_request)
    def stream(self, request: ClipRequest) -> Stream:
        """Draws a clip and tells how far it is; the last event holds it.

        `for event in client.stream("a red circle"): …`. Closing the stream, or leaving the last
        reference to it, cancels the request; errors of the server come with the events.
        """

        def send(timeout_s: float) -> Any:
            with self._starting:
                self._check_open()
                return self._stub.ModelStreamInfer(
                    iter([self._stream_message(request, timeout_s)]),
                    timeout=timeout_s,
                    metadata=self._connection.metadata,
                )

        return Stream(send, self._retries(request), self.url, self._failure, self._pause)

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
            self._channel.close()

    def _ask(self, call: UnaryCall[AnswerT], timeout_s: float = STATUS_TIMEOUT_S) -> AnswerT:
        self._check_open()
        send = getattr(self._stub, call.method)
        try:
            answer = send(call.message, timeout=timeout_s, metadata=self._connection.metadata)
        except grpc.RpcError as error:
            raise self._failure(error) from None
        except ValueError:
            # gRPC's own, where the channel was closed meanwhile.
            self._check_open()
            raise
        return self._read(call, answer)

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
