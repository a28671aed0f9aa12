from types import SimpleNamespace

import pytest

from reelserve.server.frontend import line_limit
from reelserve.server.frontend.line_limit import LineLimit

FULL, BAD = ("UNAVAILABLE", "studio"), ("INVALID_ARGUMENT", "studio")


@pytest.fixture
def clock(monkeypatch):
    clock = SimpleNamespace(now=100.0)
    monkeypatch.setattr(line_limit.time, "monotonic", lambda: clock.now)
    return clock


def test_a_storm_of_one_kind_leaves_some_lines_and_hides_no_other_kind(clock):
    limit = LineLimit(lines=3, within_s=10)

    assert [limit.takes(FULL) for _ in range(1000)] == [True] * 3 + [False] * 997
    assert limit.takes(BAD)
    assert list(limit.ended()) == [], "their time has not passed"


def test_lines_that_were_left_out_are_told_once_and_then_others_are_taken_again(clock):
    limit = LineLimit(lines=3, within_s=10)
    for _ in range(5):
        limit.takes(FULL)
    limit.takes(BAD)
    clock.now += 12

    assert list(limit.ended()) == [(FULL, 2, 12)]
    assert list(limit.ended(all_of_them=True)) == []
    assert limit.takes(FULL)


def test_lines_that_were_left_out_are_told_at_the_end(clock):
    limit = LineLimit(lines=1, within_s=10)
    for _ in range(3):
        limit.takes(FULL)
    clock.now += 1

    assert list(limit.ended(all_of_them=True)) == [(FULL, 2, 1)]
