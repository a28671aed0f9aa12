"""Readings of a server's metrics, as fast as its endpoint answers."""

from __future__ import annotations

import http.client
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass, fields
from urllib.parse import urlsplit

POLL_PAUSE_S = 0.002
"""Pause between two readings, which leaves the processor to what is measured."""
UNTIL_TIMEOUT_S = 120.0
_SERIES = {
    "reelserve_requests_in_flight": "in_flight",
    "reelserve_max_requests_in_flight": "limit",
    "reelserve_requests_active": "active",
    "reelserve_step_seconds_count": "steps",
    "reelserve_step_seconds_sum": "steps_s",
}


@dataclass(frozen=True)
class Reading:
    """What the endpoint said.

    Args:
        at: When the answer was there, on the monotonic clock.
        in_flight: Clips accepted and not ended.
        limit: Clips in flight from which on requests are refused.
        active: Clips in the denoising batch.
        steps: Denoising steps since the server's start.
        steps_s: Their seconds.
    """

    at: float
    in_flight: float = 0
    limit: float = 0
    active: float = 0
    steps: float = 0
    steps_s: float = 0

    @property
    def idle(self) -> bool:
        """Whether no clip has a place, nor takes steps."""
        return self.in_flight == self.active == 0


def parse_reading(text: str, at: float) -> Reading:
    """Picks a reading from the text of the endpoint; what it lacks is 0."""
    values = {}
    for line in text.splitlines():
        name, _, value = line.partition(" ")
        if name in _SERIES:
            values[_SERIES[name]] = float(value)
    return Reading(at, **values)


class MetricsPoll:
    """Readings of one server; a context manager.

    Args:
        url: Where it shows its metrics.
    """

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        self._path = parts.path
        self._connection = http.client.HTTPConnection(parts.netloc, timeout=UNTIL_TIMEOUT_S)
        self.gaps_s: list[float] = []
        """Seconds between two readings of one `until`."""

    def read(self) -> Reading:
        """Asks once.

        Raises:
            OSError: If the endpoint does not answer.
        """
        self._connection.request("GET", self._path)
        text = self._connection.getresponse().read().decode()
        return parse_reading(text, time.monotonic())

    def until(self, condition: Callable[[Reading], bool]) -> Reading:
        """Reads until a reading meets the condition, and gives that one.

        Raises:
            TimeoutError: If none does within `UNTIL_TIMEOUT_S`.
        """
        reading = self.read()
        deadline = reading.at + UNTIL_TIMEOUT_S
        while not condition(reading):
            if reading.at > deadline:
                raise TimeoutError(f"the server's metrics stay at {_described(reading)}")
            time.sleep(POLL_PAUSE_S)
            before, reading = reading, self.read()
            self.gaps_s.append(reading.at - before.at)
        return reading

    def gap_s(self) -> float:
        """Median seconds between two readings: how finely a moment is seen."""
        return statistics.median(self.gaps_s)

    def __enter__(self) -> MetricsPoll:
        return self

    def __exit__(self, *exception: object) -> None:
        self._connection.close()


def _described(reading: Reading) -> str:
    names = [field.name for field in fields(reading) if field.name != "at"]
    return ", ".join(f"{name} {getattr(reading, name):g}" for name in names)
