"""When the requests of an open loop arrive: a Poisson process whose rate may rise first."""

from __future__ import annotations

import math
import random
from collections.abc import Iterator


def poisson_arrivals(
    rate_per_s: float, rng: random.Random, *, ramp_from_per_s: float = 0.0, ramp_s: float = 0.0
) -> Iterator[float]:
    """Moments of arrival, without end.

    Args:
        rate_per_s: After the ramp; > 0.
        rng: Source of chance; the same state gives the same moments.
        ramp_from_per_s: Rate at the start of the ramp.
        ramp_s: Seconds in which the rate rises linearly; 0 starts at `rate_per_s`.

    Yields:
        Seconds from the start, rising.
    """
    expected = 0.0
    while True:
        expected += rng.expovariate(1.0)
        yield moment(expected, rate_per_s, ramp_from_per_s, ramp_s)


def moment(expected: float, rate_per_s: float, ramp_from_per_s: float, ramp_s: float) -> float:
    """Seconds until `expected` requests should have arrived.

    A Poisson process of rate 1 read on this clock has the wanted rate at every moment.
    """
    in_ramp = ramp_s * (ramp_from_per_s + rate_per_s) / 2
    if expected >= in_ramp:
        return ramp_s + (expected - in_ramp) / rate_per_s
    slope = (rate_per_s - ramp_from_per_s) / ramp_s
    # Solves from·t + slope·t²/2 = expected; this form also holds for a slope of 0.
    root = math.sqrt(ramp_from_per_s**2 + 2 * slope * expected)
    return 2 * expected / (ramp_from_per_s + root)
