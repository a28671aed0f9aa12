"""Who waits for a clip, as Triton's requests; importable inside a Triton stage only."""

from __future__ import annotations

import math
import time
from typing import Any

import triton_python_backend_utils as pb_utils

from reelserve.server.clip_run import Tensors
from reelserve.server.triton_io import error_response, response

MICROSECONDS_PER_SECOND = 1_000_000
QUIET_S = 1.0
"""A client hears something at least this often."""


class StreamListener:
    """The client of a request of `text_to_video_stream`, answered as things happen.

    Args:
        request: Its request.
    """

    model = "text_to_video_stream"
    tells_codes = True
    """Triton tells an error in a stream without its code. The header that asks for it,
    `triton_grpc_error`, crashes Triton 2.51 once in some thousand errors."""
    quiet_s = QUIET_S
    wants_preview = True

    def __init__(self, request: Any) -> None:
        self._sender = request.get_response_sender()
        self._broken = False
        timeout_s = request.timeout() / MICROSECONDS_PER_SECOND
        self.deadline = time.monotonic() + timeout_s if timeout_s else None

    def gone(self) -> bool:
        """Whether it closed the stream, cancelled the call, died or waits no longer."""
        return self._broken or self._sender.is_cancelled()

    def send(self, outputs: Tensors, *, last: bool) -> None:
        """Sends a response."""
        self._send(response(outputs), last=last)

    def fail(self, error: Exception) -> None:
        """Sends an error, the last response."""
        self._send(error_response(error, code_in_text=self.tells_codes), last=True)

    def _send(self, answer: Any, *, last: bool) -> None:
        flags = pb_utils.TRITONSERVER_RESPONSE_COMPLETE_FINAL if last else 0
        try:
            self._sender.send(answer, flags)
        except Exception as problem:
            self._broken = True
            pb_utils.Logger.log_warn(f"a response could not be sent: {problem}")


class UnaryListener(StreamListener):
    """The client of a request of `text_to_video`, which gets one response."""

    model = "text_to_video"
    tells_codes = False
    quiet_s = math.inf
    wants_preview = False

    def send(self, outputs: Tensors, *, last: bool) -> None:
        """Sends the last response; what comes before is not for this client."""
        if last:
            super().send({name: outputs[name] for name in ("VIDEO", "INFO")}, last=True)
