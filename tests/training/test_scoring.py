import numpy as np
import pytest
import torch
import torch.nn.functional as F  # noqa: N812

from reelserve.training.recogniser import SCENE_SECTIONS, SceneReading, object_sections
from reelserve.training.scene.labelling import draw_labels
from reelserve.training.scene.scenes import Scenes, sample_scenes
from reelserve.training.scene.vocabulary import MOTIONS, SOME_OBJECT, object_attributes
from reelserve.training.scoring import (
    best_things,
    object_allowed,
    score,
    wanted_of,
    wanted_of_scenes,
    wilson_interval,
)
from reelserve.training.train_recogniser import targets


def scenes_of(count: int, num_objects: int | None = None) -> Scenes:
    return sample_scenes(
        count, np.random.default_rng(3), held_out_only=None, num_objects=num_objects
    )


def true_reading(scenes: Scenes) -> SceneReading:
    """What a perfect recogniser would see, its queries in another order than the objects."""
    wanted = {name: value.clamp(min=0) for name, value in targets(scenes, "cpu").items()}
    objects = {
        name: F.one_hot(wanted[name], size).float().roll(1, 1)
        for name, size in object_sections().items()
    }
    scene = {name: F.one_hot(wanted[name], size).float() for name, size in SCENE_SECTIONS.items()}
    return SceneReading(objects, scene)


@pytest.mark.parametrize("count", [0, 1, 2, 3])
def test_score_is_perfect_when_all_is_as_asked(count):
    scenes = scenes_of(40, count)
    result = score(true_reading(scenes), wanted_of_scenes(scenes))
    assert result.all_right == 1.0
    assert set(result.per_attribute.values()) == {1.0}


def test_score_is_perfect_when_a_label_names_less():
    scenes = scenes_of(200)
    labels = draw_labels(scenes, np.random.default_rng(0))
    assert score(true_reading(scenes), wanted_of(labels)).all_right == 1.0


def test_score_falls_when_an_object_is_missing():
    scenes = scenes_of(10, 2)
    reading = true_reading(scenes)
    reading.objects["thing"][0, 1] = F.one_hot(torch.tensor(0), object_sections()["thing"])
    result = score(reading, wanted_of_scenes(scenes))
    assert result.all_right == pytest.approx(0.9)
    assert result.per_attribute["count"] == pytest.approx(0.9)


def test_score_falls_when_there_is_an_object_too_many():
    scenes = scenes_of(10, 1)
    reading = true_reading(scenes)
    reading.objects["thing"][4, 2] = F.one_hot(torch.tensor(5), object_sections()["thing"])
    assert not score(reading, wanted_of_scenes(scenes)).right[4]


@pytest.mark.parametrize("name", ["thing", "size", "motion", "setting", "weather"])
def test_score_falls_when_an_attribute_is_wrong(name):
    scenes = scenes_of(10, 1)
    reading = true_reading(scenes)
    part = reading.objects if name in reading.objects else reading.scene
    part[name] = part[name].roll(1, -1)
    result = score(reading, wanted_of_scenes(scenes))
    assert result.per_attribute[name] < 1
    assert result.all_right < 1


def test_a_named_motion_without_direction_allows_both():
    motions = object_attributes()["motion"]
    allowed = object_allowed({"motion": motions.index("across")})["motion"]
    assert allowed == {MOTIONS.index("left"), MOTIONS.index("right")}
    assert object_allowed({"motion": 0}) == {}


def test_an_object_that_is_not_named_may_be_any():
    allowed = object_allowed({"thing": SOME_OBJECT})["thing"]
    assert 0 not in allowed
    assert len(allowed) == object_sections()["thing"] - 1


def test_best_things_tells_what_is_there_whatever_the_order():
    scenes = scenes_of(3, 2)
    seen = best_things(true_reading(scenes))
    assert seen == [tuple(sorted(row[:2] + 1)) for row in scenes.thing]


def test_wilson_interval_gives_the_textbook_values():
    assert wilson_interval(50, 100) == pytest.approx((0.4038, 0.5962), abs=1e-4)
    low, high = wilson_interval(0, 10)
    assert low == pytest.approx(0.0, abs=1e-12)
    assert high == pytest.approx(0.2775, abs=1e-4)


def test_wilson_interval_raises_when_nothing_was_counted():
    with pytest.raises(ValueError, match="count 0"):
        wilson_interval(0, 0)
