"""What a load test writes down: every request, and every window in which they counted.

Seconds are of one monotonic clock whose zero is the start of the test.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass

from reelserve.client import StageStatistics
from reelserve.loadtest.plan import CLOSED

OK, REFUSED, ERROR = "ok", "refused", "error"


@dataclass(frozen=True)
class RequestRecord:
    """One request that has ended.

    Args:
        number: From 0, in the order of sending.
        due_s: When it was to be sent; latency counts from here, so that a late sender hides
            nothing (no coordinated omission). In a closed loop the same as `sent_s`.
        sent_s: When it was sent.
        ended_s: When its answer was there.
        outcome: `ok`, `refused` (the server had no place) or `error`.
        message: Message of the failure.
        diffusion_s: Seconds that its clip was in `video_diffusion`, waiting included; 0 if the
            server does not say.
    """

    number: int
    due_s: float
    sent_s: float
    ended_s: float
    outcome: str
    message: str = ""
    diffusion_s: float = 0.0

    @property
    def latency_s(self) -> float:
        """Seconds that its caller waited."""
        return self.ended_s - self.due_s


@dataclass(frozen=True)
class Window:
    """The window of one level.

    Args:
        level: Callers, or requests per second.
        opened_s: Start of the window.
        closed_s: End of the window.
        mean_in_flight: Requests in flight, averaged over the time of the window; from a counter
            of its own, not from the requests' latencies.
        statistics: Triton's counters of each model, what the window added to them.
    """

    level: float
    opened_s: float
    closed_s: float
    mean_in_flight: float
    statistics: dict[str, StageStatistics]

    @property
    def window_s(self) -> float:
        """Length of the window."""
        return self.closed_s - self.opened_s

    def ended_in(self, request: RequestRecord) -> bool:
        """Whether a request ended in the window."""
        return self.opened_s < request.ended_s <= self.closed_s

    def holds(self, request: RequestRecord, loop: str) -> bool:
        """Whether a request's latency counts here.

        Closed loop: it ended in the window. Open loop: it was due in the window, whenever it
        ended; a request that waits long would otherwise be counted where it no longer belongs.
        """
        if loop == CLOSED:
            return self.ended_in(request)
        return self.opened_s <= request.due_s < self.closed_s


@dataclass(frozen=True)
class Measurement:
    """All that a load test wrote down.

    Args:
        windows: Windows in the order of the levels.
        requests: Every request that ended, warm-up too, in that order.
        in_flight: Moment and requests in flight from then on.
        errors: Message to number of requests that ended so, those that count only; by Locust.
        unfinished: Why the test ended before its last level; empty if it did not.
        started_s: When the test started, on the machine's monotonic clock, for who measures
            something else meanwhile.
    """

    windows: tuple[Window, ...]
    requests: tuple[RequestRecord, ...]
    in_flight: tuple[tuple[float, int], ...]
    errors: dict[str, int]
    unfinished: str = ""
    started_s: float = 0.0

    def to_json(self) -> str:
        """For `from_json` in another process."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> Measurement:
        """Reads what `to_json` wrote."""
        raw = json.loads(text)
        windows = (
            {
                **window,
                "statistics": {
                    model: StageStatistics(**counters)
                    for model, counters in window["statistics"].items()
                },
            }
            for window in raw["windows"]
        )
        return cls(
            windows=tuple(Window(**window) for window in windows),
            requests=tuple(RequestRecord(**request) for request in raw["requests"]),
            in_flight=tuple((at_s, count) for at_s, count in raw["in_flight"]),
            errors=raw["errors"],
            unfinished=raw["unfinished"],
            started_s=raw["started_s"],
        )
