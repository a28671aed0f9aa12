"""When a refused request may be sent again, and after which wait.

Only a refusal that says when to retry counts: with it the server says that it has not accepted the
request. After any other error the request may have been accepted, and a clip sent for twice costs
twice, even where an equal seed makes it the same.
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
        self._timeout_s = timeout_s
        self._deadline = time.monotonic() + timeout_s

    def remaining_s(self) -> float:
        """Seconds that the next attempt may take, at least 0; all of them for the first one."""
        if not self._taken:
            return self._timeout_s
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
        if time.monotonic() + wait_s >= self._deadline:
            raise error from None
        self._left, self._taken = self._left - 1, self._taken + 1
        return wait_s
