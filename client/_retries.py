"""When a request may be sent again, and after which wait.

To the same server only after a refusal that says when to retry: with it the server says that it has
not accepted the request. After any other error the request may have been accepted, and a clip sent
for twice costs twice, even where an equal seed makes it the same.

To another server at once and without a retry, as long as no server has accepted it; a clip that was
lost with its server is drawn again by another one for a retry (`_stream`).
"""

from __future__ import annotations

import random
import time

from reelserve.client._exceptions import ReelserveError, UnavailableError

FIRST_BACKOFF_S = 0.5
MAX_BACKOFF_S = 8.0
MOST_DOUBLINGS = 10
"""More than reach `MAX_BACKOFF_S`; after a thousand of them a float overflows."""


class Retries:
    """What one call may still spend, over all its attempts.

    Args:
        max_retries: Attempts after the first one.
        timeout_s: Bound on all attempts and the waits between them.
    """

    def __init__(self, max_retries: int, timeout_s: float) -> None:
        self._left, self._taken = max_retries, 0
        self.timeout_s = timeout_s
        self._deadline: float | None = None

    def remaining_s(self) -> float:
        """Seconds that the next attempt may take, at least 0; time runs from the first call on."""
        if self._deadline is None:
            self._deadline = time.monotonic() + self.timeout_s
            return self.timeout_s
        return max(0.0, self._deadline - time.monotonic())

    def next_wait_s(self, error: ReelserveError) -> float:
        """Takes a retry and gives the seconds to wait before it.

        Exponential backoff with full jitter on top of what the server asks for: below that the
        request would be refused again, and without the jitter all who were refused together
        would come back together.

        Args:
            error: How the last attempt ended.

        Raises:
            ReelserveError: `error` itself, if the request must not be sent again, no retry is
                left, or the deadline comes first.
        """
        asked_s = error.retry_after_s if isinstance(error, UnavailableError) else None
        if asked_s is None or not self._left:
            raise error from None
        backoff_s = min(MAX_BACKOFF_S, FIRST_BACKOFF_S * 2.0 ** min(self._taken, MOST_DOUBLINGS))
        wait_s = asked_s + random.uniform(0.0, backoff_s)
        if wait_s >= self.remaining_s():
            raise error from None
        self._left, self._taken = self._left - 1, self._taken + 1
        return wait_s

    def take(self, error: ReelserveError) -> None:
        """Takes a retry without a wait, for another server.

        Args:
            error: How the last attempt ended.

        Raises:
            ReelserveError: `error` itself, if no retry or no time is left.
        """
        if not self._left or not self.remaining_s():
            raise error from None
        self._left -= 1
