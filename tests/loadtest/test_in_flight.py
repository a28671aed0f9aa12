from __future__ import annotations

from reelserve.loadtest.in_flight import InFlight


def test_request_seconds_integrate_over_time():
    in_flight = InFlight()
    in_flight.enter(0, 1.0)
    in_flight.enter(1, 2.0)
    assert in_flight.oldest_sent_s() == 1.0
    in_flight.leave(0, 4.0)
    assert in_flight.request_seconds(6.0) == 1.0 + 2 * 2.0 + 2.0
    in_flight.leave(1, 6.0)
    assert in_flight.oldest_sent_s() is None
    assert in_flight.request_seconds(9.0) == 7.0
    assert in_flight.history == [(0.0, 0), (1.0, 1), (2.0, 2), (4.0, 1), (6.0, 0)]
