import numpy as np
import pytest
import torch

from reelserve.training.captions import Caption
from reelserve.training.recogniser import SceneReading
from reelserve.training.scenes import (
    BACKGROUNDS,
    COLOURS,
    MOTIONS,
    SHAPES,
    SIZES,
    Scenes,
    sample_scenes,
)
from reelserve.training.scoring import score, wilson_interval


def scenes_of(count: int, two: float) -> Scenes:
    rng = np.random.default_rng(3)
    return sample_scenes(count, rng, held_out=True, two_object_share=two)


def true_reading(scenes: Scenes) -> SceneReading:
    """What a perfect recogniser would see."""
    count = len(scenes)
    rows = torch.arange(count)
    present = torch.full((count, len(COLOURS)), -5.0)
    tables = {
        name: torch.zeros(count, len(COLOURS), len(values))
        for name, values in (("shape", SHAPES), ("size", SIZES), ("motion", MOTIONS))
    }
    for which in (1, 0):
        drawn = np.ones(count, bool) if which == 0 else scenes.two_objects
        colour = torch.as_tensor(scenes.colour[:, which])
        present[rows[drawn], colour[drawn]] = 5.0
        for name, table in tables.items():
            table[rows, colour, torch.as_tensor(getattr(scenes, name)[:, which])] = 5.0
    background = torch.zeros(count, len(BACKGROUNDS))
    background[rows, torch.as_tensor(scenes.background)] = 5.0
    return SceneReading(present, tables["shape"], tables["size"], tables["motion"], background)


@pytest.mark.parametrize("two", [0.0, 1.0])
def test_score_is_perfect_when_all_is_as_asked(two):
    scenes = scenes_of(40, two)
    result = score(true_reading(scenes), scenes)
    assert result.all_right == 1.0
    assert set(result.per_attribute.values()) == {1.0}


def test_score_falls_when_an_object_is_missing():
    scenes = scenes_of(10, 1.0)
    reading = true_reading(scenes)
    reading.present[0, scenes.colour[0, 1]] = -5.0
    result = score(reading, scenes)
    assert result.all_right == pytest.approx(0.9)
    assert result.per_attribute["colour"] == pytest.approx(0.9)


def test_score_falls_when_there_is_an_object_too_many():
    scenes = scenes_of(10, 0.0)
    reading = true_reading(scenes)
    reading.present[4, (scenes.colour[4, 0] + 1) % len(COLOURS)] = 5.0
    assert not score(reading, scenes).right[4]


def test_score_asks_for_the_size_only_where_it_was_named():
    scenes = scenes_of(1, 0.0)
    reading = true_reading(scenes)
    reading.size[0, scenes.colour[0, 0]] *= -1
    silent = Caption("", names_size=(False, False), names_background=True)
    named = Caption("", names_size=(True, True), names_background=True)
    assert score(reading, scenes, [silent]).all_right == 1.0
    assert score(reading, scenes, [named]).all_right == 0.0


def test_wilson_interval_gives_the_textbook_values():
    assert wilson_interval(50, 100) == pytest.approx((0.4038, 0.5962), abs=1e-4)
    low, high = wilson_interval(0, 10)
    assert low == pytest.approx(0.0, abs=1e-12)
    assert high == pytest.approx(0.2775, abs=1e-4)


def test_wilson_interval_raises_when_nothing_was_counted():
    with pytest.raises(ValueError, match="count 0"):
        wilson_interval(0, 0)
