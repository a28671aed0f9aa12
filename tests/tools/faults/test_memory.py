from __future__ import annotations

import pytest

from reelserve.tools.faults.memory import growth


def samples(*sizes: float) -> list[tuple[float, int]]:
    return [(float(moment), int(size)) for moment, size in enumerate(sizes)]


def test_growth_leaves_out_the_warm_up():
    warm = [10, 400, 800, 1000]
    assert growth(samples(*warm, *[1000] * 16)) == 0


def test_growth_of_memory_that_goes_up_and_down_is_none():
    assert growth(samples(*[900, 1000, 1100] * 20)) == 0


def test_growth_finds_a_leak():
    assert growth(samples(*range(1000, 1100))) == pytest.approx(0.052, abs=0.005)


def test_growth_needs_samples():
    with pytest.raises(ValueError, match="3 samples of memory; at least 8 are needed"):
        growth(samples(1, 2, 3))
