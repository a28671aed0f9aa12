import multiprocessing
import os
import threading
import time

import pytest

from reelserve.server.places import Places, clip_units


def test_places_are_as_many_as_the_limit(tmp_path):
    places = Places(tmp_path, 2)
    first, second = places.take(), places.take()

    assert places.take() is None and places.count() == 2
    first.free()
    first.free()
    assert places.take() is not None
    second.free()
    assert places.count() == 1


def _take_and_die(folder):
    assert Places(folder, 1).take() is not None
    os._exit(1)


def test_places_of_a_dead_process_are_free_again(tmp_path):
    process = multiprocessing.get_context("spawn").Process(target=_take_and_die, args=(tmp_path,))
    process.start()
    process.join(60)
    places = Places(tmp_path, 1)

    assert places.count() == 1
    assert places.take() is not None and places.take() is None


def test_expected_seconds_grow_with_the_clips_in_flight(tmp_path):
    places = Places(tmp_path, 4)
    place = places.take()
    place.measure(clip_units(80, 256, 256, 8))
    assert places.expected_s(place) is None and places.next_end_s() is None

    places.learn(10 / place.units)
    alone = places.expected_s(place)
    other = places.take()
    other.measure(place.units)

    assert alone == pytest.approx(10)
    assert places.expected_s(place) == pytest.approx(20, abs=1)
    assert places.next_end_s() == pytest.approx(20, abs=1)


def test_next_end_is_that_of_the_clips_that_take_steps_together(tmp_path):
    places = Places(tmp_path, 12)
    taken = [places.take() for _ in range(12)]
    for place in taken:
        place.measure(clip_units(80, 256, 256, 8))
    places.learn(10 / taken[0].units)

    assert places.next_end_s() == pytest.approx(120, abs=1)
    places.share_among(4)
    assert places.next_end_s() == pytest.approx(40, abs=1)


def test_places_are_counted_by_one_at_a_time(tmp_path):
    places, told = Places(tmp_path, 1), []
    place = places.take()

    def tell_late():
        with places.counting() as count:
            counted.set()
            time.sleep(0.2)
            told.append(count)

    counted = threading.Event()
    thread = threading.Thread(target=tell_late)
    thread.start()
    assert counted.wait(10)
    place.free()
    with Places(tmp_path, 1).counting() as count:
        told.append(count)
    thread.join()
    assert told == [1, 0]


def test_cost_of_a_unit_follows_what_clips_take(tmp_path):
    places = Places(tmp_path, 1)
    places.learn(1.0)
    places.learn(2.0)

    assert 1.0 < places.seconds_per_unit() < 2.0


def test_clip_units_grow_with_size_and_steps():
    assert clip_units(80, 256, 256, 16) > clip_units(80, 256, 256, 8)
    assert clip_units(160, 256, 256, 8) == 2 * clip_units(80, 256, 256, 8)
