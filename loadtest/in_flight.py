"""Counts requests in flight over time, apart from their latencies."""

from __future__ import annotations


class InFlight:
    """Who is in flight, and the time integral of how many.

    Requests are entered when they are really sent. A sender that runs late, a request counted
    twice or not at all, a clock that jumps: each shows as a difference between this and what
    Little's law expects from throughput and latency.
    """

    def __init__(self) -> None:
        self.history: list[tuple[float, int]] = [(0.0, 0)]
        self._sent_s: dict[int, float] = {}
        self._integral, self._looked_s = 0.0, 0.0

    def enter(self, number: int, now_s: float) -> None:
        """A request is sent."""
        self._advance(now_s)
        self._sent_s[number] = now_s
        self.history.append((now_s, len(self._sent_s)))

    def leave(self, number: int, now_s: float) -> None:
        """A request has ended."""
        self._advance(now_s)
        del self._sent_s[number]
        self.history.append((now_s, len(self._sent_s)))

    def request_seconds(self, now_s: float) -> float:
        """Integral of the number in flight since the start, in requests × seconds."""
        self._advance(now_s)
        return self._integral

    def oldest_sent_s(self) -> float | None:
        """When the oldest request in flight was sent; None if there is none."""
        return min(self._sent_s.values(), default=None)

    def _advance(self, now_s: float) -> None:
        self._integral += len(self._sent_s) * (now_s - self._looked_s)
        self._looked_s = now_s
