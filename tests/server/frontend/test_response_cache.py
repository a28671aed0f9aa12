from dataclasses import dataclass

import numpy as np
import pytest

from reelserve.server.frontend import response_cache
from reelserve.server.frontend.response_cache import MAX_CLIPS, ResponseCache, fingerprint


@dataclass(eq=False)
class Clip:
    ended_at: float | None = None


class Clock:
    now = 1000.0

    def monotonic(self):
        return self.now


@pytest.fixture
def clock(monkeypatch):
    clock = Clock()
    monkeypatch.setattr(response_cache, "time", clock)
    return clock


def tensors(seed: int | None = 1, **more):
    values = {"PROMPT": np.array([b"a star"], object), **more}
    return values if seed is None else {**values, "SEED": np.array([seed], np.int64)}


def test_fingerprint_tells_requests_apart_that_give_different_clips():
    changes = [
        {},
        {"PROMPT": np.array([b"a stark"], object)},
        {"NEGATIVE_PROMPT": np.array([b"a star"], object)},
        {"FPS": np.array([8], np.int32)},
        {"HEIGHT": np.array([8], np.int32)},
        {"GUIDANCE_SCALE": np.array([8], np.float32)},
    ]
    found = {fingerprint(tensors(**change)) for change in changes}
    assert len(found) == len(changes)
    assert fingerprint(tensors(2)) not in found


def test_fingerprint_is_that_of_the_clip_alone():
    mine, yours = tensors(PRIORITY=np.array([b"batch"], object)), dict(reversed(tensors().items()))

    assert fingerprint(mine) == fingerprint(tensors()) == fingerprint(yours)
    assert fingerprint(tensors(None)) is None


def test_cache_gives_the_clip_of_an_equal_request_drawn_or_finished(clock):
    cache, clip = ResponseCache(60.0), Clip()
    cache.add(tensors(), clip)

    assert cache.find(tensors()) is clip
    assert cache.find(tensors(2)) is None
    clock.now += 1000.0
    assert cache.find(tensors()) is clip, "it is being drawn"
    clip.ended_at = clock.now
    clock.now += 60.0
    assert cache.find(tensors()) is clip
    clock.now += 0.1
    assert cache.find(tensors()) is None


def test_cache_never_shares_a_request_without_a_seed(clock):
    cache = ResponseCache(60.0)
    cache.add(tensors(None), Clip())

    assert cache.find(tensors(None)) is None


def test_cache_shares_nothing_when_it_is_off(clock):
    cache = ResponseCache(0)
    cache.add(tensors(), Clip())

    assert cache.find(tensors()) is None


def test_cache_forgets_a_clip_that_will_not_be_finished(clock):
    cache, gone, kept = ResponseCache(60.0), Clip(), Clip()
    cache.add(tensors(1), gone)
    cache.add(tensors(2), kept)
    cache.remove(gone)

    assert cache.find(tensors(1)) is None and cache.find(tensors(2)) is kept


def test_cache_keeps_the_newest_clips(clock):
    cache = ResponseCache(1000.0)
    for seed in range(MAX_CLIPS + 3):
        cache.add(tensors(seed), Clip(clock.now + seed))
    running = Clip()
    cache.add(tensors(500), running)
    clock.now += 100.0

    assert cache.find(tensors(500)) is running
    assert [seed for seed in range(6) if cache.find(tensors(seed)) is None] == [0, 1, 2]
    assert cache.find(tensors(MAX_CLIPS + 2)) is not None
