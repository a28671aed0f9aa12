from __future__ import annotations

import itertools
import random
import statistics

import pytest

from reelserve.loadtest.arrivals import moment, poisson_arrivals


def arrivals(count: int, rate: float, seed: int = 0, **ramp: float) -> list[float]:
    return list(itertools.islice(poisson_arrivals(rate, random.Random(seed), **ramp), count))


def test_poisson_arrivals_are_the_same_again_and_differ_with_the_seed():
    assert arrivals(20, 2.0) == arrivals(20, 2.0)
    assert arrivals(20, 2.0) != arrivals(20, 2.0, seed=1)


def test_poisson_arrivals_have_exponential_gaps_of_the_rate():
    moments = arrivals(20000, 4.0)
    gaps = [after - before for before, after in itertools.pairwise([0.0, *moments])]
    assert min(gaps) > 0
    assert statistics.fmean(gaps) == pytest.approx(0.25, rel=0.03)
    # The mark of an exponential distribution: its deviation is its mean.
    assert statistics.pstdev(gaps) == pytest.approx(0.25, rel=0.03)


def test_poisson_arrivals_rise_along_the_ramp():
    moments = arrivals(40000, 8.0, ramp_from_per_s=2.0, ramp_s=3000.0)
    counts = [sum(low <= at < low + 1000 for at in moments) for low in (0, 1000, 2000, 3000)]
    assert counts == pytest.approx([3000, 5000, 7000, 8000], rel=0.06)


@pytest.mark.parametrize("start", [0.0, 1.0, 2.0])
@pytest.mark.parametrize("at_s", [0.5, 9.0, 10.0, 25.0])
def test_moment_inverts_the_expected_number_of_arrivals(start, at_s):
    rate, ramp_s = 2.0, 10.0
    in_ramp = min(at_s, ramp_s)
    expected = start * in_ramp + (rate - start) * in_ramp**2 / (2 * ramp_s)
    expected += rate * (at_s - in_ramp)
    assert moment(expected, rate, start, ramp_s) == pytest.approx(at_s)


def test_moment_without_a_ramp_is_even():
    assert moment(3.0, 2.0, 0.0, 0.0) == 1.5
