"""Asks `text_to_video_stream` and gives its last answer: the public model, in one response."""

import os
import uuid

import triton_python_backend_utils as pb_utils

from reelserve.server.board import Board
from reelserve.server.errors import StageError, UnavailableError
from reelserve.server.listeners import STREAM_MODEL
from reelserve.server.triton_io import (
    check_not_sequence,
    error_response,
    input_arrays,
    model_request,
    raise_error,
)

OUTPUTS = ("EVENT", "VIDEO", "INFO")


class TritonPythonModel:
    """In: the public request, one element each; see `prompt_processor`.

    Out: VIDEO `[1]` STRING, the bytes of an MP4 file; INFO `[1]` STRING, JSON.

    Every instance holds one request and looks, whenever the stream says something, whether its
    client is still there: an ensemble would see that only between two stages.
    """

    def initialize(self, args):
        """Opens the board on which it says that a client has left."""
        self._board = Board.of_server(os.getppid())

    def execute(self, requests):
        """Answers every request by itself."""
        return [self._answer(request) for request in requests]

    def _answer(self, request):
        try:
            check_not_sequence(request)
            if refusal := self._board.full():
                raise UnavailableError(refusal)
            return self._relay(request)
        except Exception as error:
            return error_response(error)

    def _relay(self, request):
        key = uuid.uuid4().hex
        call = model_request(
            STREAM_MODEL,
            input_arrays(request),
            OUTPUTS,
            key,
            timeout_us=request.timeout(),
        )
        answer = None
        try:
            for reply in call.exec(decoupled=True):
                if reply.has_error():
                    raise_error(STREAM_MODEL, reply.error().message())
                elif any(tensor.name() == "VIDEO" for tensor in reply.output_tensors()):
                    answer = _without_event(reply)
                elif request.is_cancelled():
                    self._board.cancel(key)
        finally:
            self._board.forget(key)
        if answer is None:
            raise StageError(f"{STREAM_MODEL} ended without an answer")
        return answer


def _without_event(reply):
    """The response of a request from the last one of its stream."""
    wanted = [tensor for tensor in reply.output_tensors() if tensor.name() != "EVENT"]
    return pb_utils.InferenceResponse(wanted)
