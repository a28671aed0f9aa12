"""The arithmetic of cancels, against a server that exists in a clock only."""

from __future__ import annotations

import contextlib
import random
from collections.abc import Callable, Iterator

import pytest

from reelserve.tools.bench import cancel_latency
from reelserve.tools.bench.cancel_latency import (
    METHODS,
    STREAMED,
    UNARY,
    Pace,
    Way,
    all_ways,
    measure_pace,
    measure_way,
)
from reelserve.tools.bench.metrics_poll import Reading

STEP_S, BEFORE_S, READ_S, NEVER = 1.0, 0.5, 0.01, 1e9
OPTIONS = {"num_inference_steps": 8}


class FakeServer:
    """A clock, and a server whose clip frees its slot `extra` steps after the one it was left in.

    It stands for `time`, the poll of the metrics and the request.
    """

    def __init__(self, extra: int = 0) -> None:
        self.now, self.extra = 100.0, extra
        self.done, self.sent, self.left = 0, NEVER, NEVER

    def monotonic(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds

    def steps_until(self, moment: float) -> int:
        return max(0, min(8, int((moment - self.sent - BEFORE_S) / STEP_S)))

    def steps(self) -> int:
        if self.left == NEVER:
            return self.steps_until(self.now)
        return min(self.steps_until(self.now), self.last_step())

    def last_step(self) -> int:
        return min(8, self.steps_until(self.left) + 1 + self.extra)

    def read(self) -> Reading:
        self.now += READ_S
        free = self.sent == NEVER or (self.now >= self.left and self.steps() == self.last_step())
        steps = self.done + self.steps()
        return Reading(self.now, not free, 12, not free, steps, steps * STEP_S)

    def until(self, condition: Callable[[Reading], bool]) -> Reading:
        for _ in range(10_000):
            reading = self.read()
            if condition(reading):
                return reading
        raise TimeoutError

    @contextlib.contextmanager
    def start(self, url: str, options: dict) -> Iterator[Callable[[], float]]:
        self.sent, self.left = self.now, NEVER
        deadline = self.now + options.get("timeout_s", -self.now)

        def leave() -> float:
            self.left = self.now = max(self.now, deadline)
            return self.left

        yield leave
        self.done, self.sent = self.done + self.steps(), NEVER


def measured(
    monkeypatch, server: FakeServer, by_deadline: bool = False, slower: float = 1.0
) -> dict:
    monkeypatch.setattr(cancel_latency, "time", server)
    monkeypatch.setattr(cancel_latency, "measure_pace", lambda *_: Pace(BEFORE_S, STEP_S))
    random.seed(0)
    way = Way("text_to_video", "left", server.start, by_deadline)
    return measure_way(way, "host:1", server, OPTIONS, 20, Pace(BEFORE_S, slower * STEP_S))


@pytest.mark.parametrize("by_deadline", [False, True])
def test_a_slot_that_is_free_after_the_step_is_within_the_bound(monkeypatch, by_deadline):
    results = measured(monkeypatch, FakeServer(), by_deadline)
    assert len(results["runs_s"]) == results["within_bound"] == 20
    assert results["step_median_s"] == results["step_max_s"] == pytest.approx(STEP_S)
    assert 0 < results["median_s"] <= results["max_s"] <= STEP_S + READ_S


def test_a_slot_that_is_free_a_step_later_is_over_the_bound(monkeypatch):
    results = measured(monkeypatch, FakeServer(extra=1))
    assert results["within_bound"] < 20
    assert results["max_over_step_s"] > cancel_latency.ALLOWED_S


def test_measure_way_raises_when_every_clip_has_ended_its_steps(monkeypatch):
    with pytest.raises(TimeoutError, match="no clip of text_to_video was left"):
        measured(monkeypatch, FakeServer(extra=8))


def test_a_pace_that_no_longer_holds_is_measured_anew(monkeypatch):
    results = measured(monkeypatch, FakeServer(), by_deadline=True, slower=5)
    assert len(results["runs_s"]) == 20


def test_measure_pace_finds_the_start_and_the_step(monkeypatch):
    server = FakeServer()
    monkeypatch.setattr(cancel_latency, "time", server)
    monkeypatch.setattr(cancel_latency, "closed_stream", server.start)
    pace = measure_pace("host:1", server, OPTIONS)
    assert pace.step_s == pytest.approx(STEP_S, abs=2 * READ_S)
    assert pace.before_s == pytest.approx(BEFORE_S, abs=4 * READ_S)


def test_calls_and_streams_are_left_in_every_way_that_they_have():
    found = {(way.model, way.how) for way in all_ways()}
    both = {(model, how) for model in METHODS for how in ("deadline passed", "client killed")}
    assert found == {*both, (UNARY, "call cancelled"), (STREAMED, "stream closed")}
    assert all(way.by_deadline == (way.how == "deadline passed") for way in all_ways())
