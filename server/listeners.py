"""Who waits for a clip, as Triton's requests; importable inside a Triton stage only."""

from __future__ import annotations

import time
from typing import Any

import triton_python_backend_utils as pb_utils

from reelserve.server.board import Board
from reelserve.server.clip_run import Tensors
from reelserve.server.triton_io import call_key, error_response, response

MICROSECONDS_PER_SECOND = 1_000_000
QUIET_S = 1.0
"""A client hears something at least this often."""
RELAY_QUIET_S = 0.05
"""A relay looks between two messages whether its own client has left."""
STREAM_MODEL, UNARY_MODEL = "text_to_video_stream", "text_to_video"


class StreamListener:
    """The other end of a decoupled request.

    Args:
        request: Of `text_to_video_stream`.
        board: Where a relay says that its client has left.
    """

    def __init__(self, request: Any, board: Board) -> None:
        self._sender, self._board = request.get_response_sender(), board
        self._left = False
        self._request, self._relay_key = request, call_key(request)
        relayed = bool(self._relay_key)
        self.model = UNARY_MODEL if relayed else STREAM_MODEL
        self.quiet_s = RELAY_QUIET_S if relayed else QUIET_S
        self.wants_preview = not relayed
        timeout_s = request.timeout() / MICROSECONDS_PER_SECOND
        self.deadline = time.monotonic() + timeout_s if timeout_s else None

    def gone(self) -> bool:
        """Whether the client closed the stream, cancelled the call or died."""
        if self._relay_key and self._board.is_cancelled(self._relay_key):
            return True
        return self._left or self._sender.is_cancelled()

    def send(self, outputs: Tensors, *, last: bool) -> None:
        """Sends a response."""
        self._send(response(outputs), last=last)

    def fail(self, error: Exception) -> None:
        """Sends an error, the last response."""
        self._send(error_response(error, self._request), last=True)

    def _send(self, answer: Any, *, last: bool) -> None:
        flags = pb_utils.TRITONSERVER_RESPONSE_COMPLETE_FINAL if last else 0
        try:
            self._sender.send(answer, flags)
        except Exception as problem:
            # Nobody is there any more; the others who wait must not notice.
            self._left = True
            pb_utils.Logger.log_warn(f"a response could not be sent: {problem}")
