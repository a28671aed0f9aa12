"""Notices a connection over which nothing comes any more.

The server tells something every second while it draws. Where nothing came for `ASK_AFTER_S`, it is
asked on the same connection whether it lives: a large clip on a slow line is on its way in
silence, too, and so is any clip of a Triton without reelserve's front end. Pings of HTTP/2 would
end at the next proxy, and a server that does not expect them ends the connection.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any

import grpc

from reelserve.client._exceptions import NoServerError, ReelserveError, described

ASK_AFTER_S = 10.0
"""Silence after which the server is asked whether it lives."""
ANSWER_WITHIN_S = 5.0
"""Bound on its answer; with `ASK_AFTER_S` the 15 s after which a connection counts as lost."""
LOOKS = 10
"""So often within `ASK_AFTER_S` a thread looks how long the silence is."""

UNANSWERED = (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED)
"""Statuses of a call that reached nobody. Any other one, a refusal too, was said by somebody."""

_ADVICE = "check the network between here and the server, and send the request again"


def lost(url: str) -> ReelserveError:
    """What is said of a connection that fell silent."""
    silent_s = ASK_AFTER_S + ANSWER_WITHIN_S
    words = f"the connection is lost: nothing has come for {silent_s:g} s"
    return described(NoServerError, words, url, _ADVICE)


class Watch:
    """Cancels a call that waits for a server which does not answer; a thread looks.

    Args:
        call: The gRPC call; refers to nothing that keeps a stream alive.
        lives: Asks the server, for `ANSWER_WITHIN_S`, whether it lives.
    """

    def __init__(self, call: Any, lives: Callable[[], bool]) -> None:
        self.lost = False
        """Whether the call was cancelled for its silence."""
        self._call, self._lives = call, lives
        self._lock, self._ended = threading.Lock(), threading.Event()
        self._since: float | None = None
        threading.Thread(target=self._look, name="reelserve-silence", daemon=True).start()

    def next(self) -> Any:
        """The next message of the call.

        Raises:
            StopIteration: If there is none.
            grpc.RpcError: If the call failed, or was cancelled for its silence.
        """
        self._waits_since(time.monotonic())
        try:
            return next(self._call)
        finally:
            self._waits_since(None)

    def end(self) -> None:
        """Ends the thread."""
        self._ended.set()

    def _waits_since(self, moment: float | None) -> None:
        with self._lock:
            self._since = moment

    def _look(self) -> None:
        while not self._ended.wait(ASK_AFTER_S / LOOKS):
            since = self._since
            if since is None or time.monotonic() - since < ASK_AFTER_S:
                continue
            alive = self._lives()
            with self._lock:
                if self._since != since:
                    continue
                self._since, self.lost = time.monotonic(), not alive
            if not alive:
                self._call.cancel()
                return
