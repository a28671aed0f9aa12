import pytest

from reelserve.server.frontend import admission
from reelserve.server.frontend.admission import (
    DECODE_STEPS,
    MEMORY,
    Admission,
    TritonLoad,
    clip_units,
)


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch):
    clock = Clock()
    monkeypatch.setattr(admission, "time", clock)
    return clock


def loads(count, clock):
    return [TritonLoad(f"gpu{number}", ready=True, _counted=clock.now) for number in range(count)]


def test_clip_units_grow_with_pixels_frames_and_steps():
    assert clip_units(10, 100, 1000, 1) == 1 + DECODE_STEPS
    assert clip_units(20, 100, 1000, 1) == 2 * clip_units(10, 100, 1000, 1)


def test_choose_gives_the_triton_with_the_fewest_clips(clock):
    first, second = loads(2, clock)
    places = Admission([first, second], limit=3, together=4)
    taken = []
    for _ in range(6):
        load = places.choose()
        taken.append(load.name)
        places.take(load, 1.0)

    assert taken == ["gpu0", "gpu1"] * 3
    assert (places.in_flight, places.limit) == (6, 6)
    assert places.choose() is None
    places.free(second.places[0], finished=False)
    assert places.choose() is second


def test_choose_passes_over_tritons_that_are_not_ready(clock):
    first, second = loads(2, clock)
    places = Admission([first, second], limit=1, together=4)
    first.ready = False

    assert places.ready and places.choose() is second
    places.take(second, 1.0)
    assert places.choose() is None, "one that is not ready has no place"
    second.ready = False
    assert not places.ready


def test_estimates_know_nothing_before_the_first_clip(clock):
    (load,) = loads(1, clock)
    places = Admission([load], limit=4, together=4)
    place = places.take(load, 1.0)

    assert places.expected_s(load, 1.0) is None
    assert places.next_end_s() is None and places.remaining_s(place) is None
    assert places.retry_after_s(5.0) == 5
    places.free(place, finished=False)
    assert places.expected_s(load, 1.0) is None, "a clip that was not finished tells no cost"


def test_free_learns_what_clips_cost(clock):
    (load,) = loads(1, clock)
    places = Admission([load], limit=4, together=4)

    def draw(seconds):
        place = places.take(load, 2.0)
        clock.now += seconds
        places.free(place, finished=True)

    draw(4.0)
    assert places.expected_s(load, 1.0) == pytest.approx(2.0)
    draw(8.0)
    assert places.expected_s(load, 1.0) == pytest.approx(2.0 + MEMORY * 2.0)


def test_clips_that_share_a_triton_cost_as_much_as_alone(clock):
    (load,) = loads(1, clock)
    places = Admission([load], limit=4, together=4)
    first, second = places.take(load, 1.0), places.take(load, 1.0)
    clock.now += 6.0
    places.free(first, finished=True)

    assert places.expected_s(load, 1.0) == pytest.approx(3.0 + 0.15), "and 5% of the second one"
    clock.now += 1.0
    assert second.taken_s() == pytest.approx(4.0), "alone it is faster"


def test_expected_counts_what_is_left_of_all_others(clock):
    one, other = loads(2, clock)
    places = Admission([one, other], limit=4, together=4)
    first = places.take(one, 1.0)
    clock.now += 2.0
    places.free(first, finished=True)
    places.take(one, 1.0)
    places.take(one, 3.0)
    clock.now += 1.0

    # 2 s each unit; 1 s was shared by two.
    assert places.expected_s(one, 1.0) == pytest.approx(2.0 + 1.5 + 5.5)
    assert places.expected_s(other, 1.0) == pytest.approx(2.0), "another one's clips do not count"


def test_next_end_is_that_of_the_clips_that_take_steps(clock):
    (load,) = loads(1, clock)
    places = Admission([load], limit=9, together=2)
    first = places.take(load, 1.0)
    clock.now += 4.0
    places.free(first, finished=True)
    for units in (2.0, 3.0, 1.0):
        place = places.take(load, units)

    assert places.next_end_s() == pytest.approx(2 * 8.0), "the third one waits"
    assert places.retry_after_s(5.0) == 16
    assert places.remaining_s(place) == pytest.approx(3 * 4.0)


def test_a_clip_that_takes_longer_than_expected_has_something_left(clock):
    (load,) = loads(1, clock)
    places = Admission([load], limit=4, together=4)
    first = places.take(load, 1.0)
    clock.now += 2.0
    places.free(first, finished=True)
    late = places.take(load, 1.0)
    clock.now += 100.0

    assert places.remaining_s(late) == pytest.approx(admission.LEAST_SHARE_LEFT * 2.0)


def test_a_caller_is_told_when_one_of_its_own_clips_ends(clock):
    one, other = loads(2, clock)
    places = Admission([one, other], limit=4, together=4)
    first = places.take(one, 1.0)
    assert places.retry_after_s(5.0, "studio") == 5
    clock.now += 10.0
    places.free(first, finished=True)

    places.take(one, 1.0, "lab")
    held = [places.take(other, 4.0, "studio"), places.take(other, 2.0, "studio")]
    assert places.held_by("studio") == held
    # Ten seconds a unit, two units, beside one other clip.
    assert places.retry_after_s(5.0, "studio") == 40
    assert places.retry_after_s(5.0) == 10
