"""The states of a load test, driven by hand: no server, no clock."""

from __future__ import annotations

import pytest

from reelserve.client import StageStatistics
from reelserve.loadtest.in_flight import InFlight
from reelserve.loadtest.plan import CLOSED, OPEN, Plan
from reelserve.loadtest.records import ERROR, OK, REFUSED, RequestRecord
from reelserve.loadtest.sweep import Sweep, difference
from tests.loadtest.samples import plan


class Driven:
    """A sweep whose requests are sent and ended by the test."""

    def __init__(self, wanted: Plan) -> None:
        self.in_flight, self.readings = InFlight(), 0
        self.sweep = Sweep(wanted, self.in_flight, self._read)
        self._sent: dict[int, float] = {}

    def _read(self) -> dict[str, StageStatistics]:
        self.readings += 1
        return {"denoiser": StageStatistics(requests=10 * self.readings)}

    def send(self, number: int, at_s: float) -> None:
        self._sent[number] = at_s
        self.in_flight.enter(number, at_s)
        self.sweep.sent(number, at_s)

    def end(self, number: int, at_s: float, outcome: str = OK) -> bool:
        sent_s = self._sent.pop(number)
        self.in_flight.leave(number, at_s)
        return self.sweep.ended(RequestRecord(number, sent_s, sent_s, at_s, outcome))


def one_caller(driven: Driven, clips: int, seconds: float = 10.0) -> list[bool]:
    """One caller's clips, one after the other from 0 s."""
    counted = []
    driven.sweep.load_is(1, 0.0)
    for number in range(clips):
        driven.send(number, number * seconds)
        counted.append(driven.end(number, (number + 1) * seconds))
    return counted


def test_a_closed_window_opens_after_the_warm_up_and_closes_after_the_clips():
    driven = Driven(plan(levels=(1,), clips=3, rounds=1))
    assert one_caller(driven, 4) == [False, True, True, True]
    assert driven.sweep.finished
    (window,) = driven.sweep.records()
    assert (window.opened_s, window.closed_s, window.mean_in_flight) == (10.0, 40.0, 1.0)
    assert window.statistics == {"denoiser": StageStatistics(requests=10)}


def test_a_closed_window_stays_open_for_the_seconds_that_are_wanted():
    driven = Driven(plan(levels=(1,), clips=1, rounds=1, level_s=45.0))
    one_caller(driven, 6)
    assert driven.sweep.records()[0].window_s == 50.0


def test_a_closed_window_opens_when_nothing_in_flight_is_older_than_the_full_load():
    driven = Driven(plan(levels=(2,), clips=2, rounds=1))
    driven.send(0, 0.0)
    driven.send(1, 1.0)
    driven.sweep.load_is(1, 0.0)
    driven.sweep.load_is(2, 2.0)
    for number, at_s in ((1, 3.0), (2, 4.0), (3, 5.0)):
        assert not driven.end(number, at_s)
        driven.send(number + 1, at_s)
    assert not driven.end(0, 6.0), "its end opens the window"
    driven.send(5, 6.0)
    assert driven.end(4, 7.0)


def test_a_closed_sweep_goes_on_to_the_next_level_without_a_pause():
    driven = Driven(plan(levels=(1, 2), clips=1, rounds=1))
    assert driven.sweep.callers(0.0) == 1
    one_caller(driven, 2)
    assert (driven.sweep.level, driven.sweep.previous_level, driven.sweep.number) == (2, 1, 1)
    assert driven.sweep.callers(20.0) == 2
    assert not driven.sweep.finished


def test_callers_rise_along_the_ramp():
    driven = Driven(plan(levels=(9,), ramp_s=10.0))
    assert [driven.sweep.callers(at_s) for at_s in (0.0, 5.0, 9.99, 10.0, 99.0)] == [1, 4, 8, 9, 9]


def test_refusals_move_nothing_and_errors_do():
    driven = Driven(plan(levels=(1,), clips=1, rounds=1))
    driven.sweep.load_is(1, 0.0)
    for number, outcome in enumerate((REFUSED, REFUSED, ERROR, REFUSED, ERROR)):
        driven.send(number, number)
        driven.end(number, number + 0.5, outcome)
    (window,) = driven.sweep.records()
    assert (window.opened_s, window.closed_s) == (2.5, 4.5)


def test_an_open_window_has_its_length_and_waits_for_those_that_were_due_in_it():
    driven = Driven(plan(loop=OPEN, levels=(0.5,), clips=5, warm_up_clips=0))
    driven.sweep.load_is(0.5, 0.0)
    driven.sweep.tick(1.0)
    driven.send(0, 3.0)
    driven.send(1, 10.9)
    driven.sweep.tick(11.0)
    driven.send(2, 12.0)
    assert driven.end(0, 13.0)
    driven.sweep.tick(13.0)
    assert not driven.sweep.finished, "one that was due in the window is in flight"
    assert not driven.end(2, 14.0), "due after the window"
    assert driven.end(1, 15.0)
    driven.sweep.tick(15.1)
    assert driven.sweep.finished
    (window,) = driven.sweep.records()
    assert (window.opened_s, window.closed_s) == (1.0, 11.0)
    assert window.mean_in_flight == pytest.approx((8.0 + 0.1) / 10)


def test_an_open_window_opens_after_the_warm_up():
    driven = Driven(plan(loop=OPEN, levels=(1.0,), warm_up_clips=1, warm_up_s=5.0))
    driven.sweep.load_is(1.0, 2.0)
    driven.sweep.tick(8.0)
    driven.send(0, 9.0)
    driven.end(0, 10.0)
    driven.sweep.tick(10.5)
    driven.send(1, 11.0)
    assert driven.end(1, 12.0)


@pytest.mark.parametrize(("loop", "levels"), [(CLOSED, (1, 2)), (OPEN, (0.5, 1.0))])
def test_a_sweep_ends_when_a_level_takes_too_long(loop, levels):
    driven = Driven(plan(loop=loop, levels=levels, max_level_s=60.0))
    driven.sweep.tick(59.0)
    assert not driven.sweep.finished
    driven.sweep.tick(61.0)
    assert driven.sweep.finished
    assert driven.sweep.unfinished == f"the level of {levels[0]:g} did not end within 60 s"
    assert driven.sweep.records() == ()


def test_difference_takes_models_that_are_new_as_they_are():
    now = {"denoiser": StageStatistics(requests=5), "upsampler": StageStatistics(requests=2)}
    before = {"denoiser": StageStatistics(requests=3)}
    assert {name: found.requests for name, found in difference(before, now).items()} == {
        "denoiser": 2,
        "upsampler": 2,
    }
