import numpy as np
import pytest

from reelserve.training.scene.scenes import (
    FREE,
    NATURAL,
    WITH_SPEED,
    held_out,
    held_out_name,
    motion_group,
    sample_scenes,
)
from reelserve.training.scene.vocabulary import (
    ALWAYS_CLEAR,
    COLOURS,
    MOTIONS,
    NAMED_MOTIONS,
    PLACES,
    SETTINGS,
    SHAPES,
    thing_names,
)


def drawn(scenes):
    return np.arange(scenes.thing.shape[1])[None] < scenes.count[:, None]


@pytest.mark.parametrize("held_out_only", [True, False])
def test_sample_scenes_keeps_to_its_side_of_the_split(held_out_only):
    scenes = sample_scenes(1500, np.random.default_rng(1), held_out_only=held_out_only)
    found = held_out(scenes.thing, scenes.colour, scenes.motion)
    assert (found == held_out_only)[drawn(scenes)].all()


def test_about_a_fifth_is_held_out_and_everything_is_trained():
    scenes = sample_scenes(6000, np.random.default_rng(2), held_out_only=None)
    there = drawn(scenes)
    share = held_out(scenes.thing, scenes.colour, scenes.motion)[there].mean()
    assert 0.13 < share < 0.22
    trained = sample_scenes(6000, np.random.default_rng(3))
    assert set(trained.thing[drawn(trained)]) == set(range(len(thing_names())))
    assert set(trained.motion[drawn(trained)]) == set(range(len(MOTIONS)))


def test_motions_that_differ_in_direction_are_held_out_together():
    left, right = MOTIONS.index("left"), MOTIONS.index("right")
    groups = motion_group(np.array([left, right, MOTIONS.index("spin")]))
    assert groups[0] == groups[1] != groups[2]
    for thing in thing_names()[:40]:
        assert held_out_name(thing, "red", "left") == held_out_name(thing, "red", "across")


def test_held_out_name_needs_what_makes_the_combination():
    assert not any(held_out_name(thing, "", "") for thing in thing_names())
    assert not any(held_out_name(shape, "", "spin") for shape in SHAPES)
    names = [
        held_out_name(thing, colour, motion)
        for thing in thing_names()[:30]
        for colour in COLOURS
        for motion in NAMED_MOTIONS
    ]
    assert 0.1 < np.mean(names) < 0.25


def test_sample_scenes_draws_only_what_can_be_read():
    scenes = sample_scenes(4000, np.random.default_rng(4), held_out_only=None)
    there = drawn(scenes)
    clear = np.isin(scenes.setting, [SETTINGS.index(name) for name in ALWAYS_CLEAR])
    assert (scenes.weather[clear] == 0).all()
    able = np.isin(scenes.motion, [MOTIONS.index(name) for name in WITH_SPEED])
    assert (scenes.speed[~able] == 0).all()
    assert (scenes.colour[scenes.thing < len(SHAPES)] != NATURAL).all()
    plain = scenes.setting == SETTINGS.index("plain")
    same = (scenes.colour == scenes.ground_colour[:, None]) & there & plain[:, None]
    assert not same.any()


def test_places_of_one_scene_differ():
    scenes = sample_scenes(4000, np.random.default_rng(5), held_out_only=None)
    for place, count in zip(scenes.place, scenes.count, strict=True):
        named = [int(one) for one in place[:count] if one != FREE]
        assert len(named) == len(set(named))
        assert all(1 <= one <= len(PLACES) for one in named)


def test_pairs_come_together():
    scenes = sample_scenes(4000, np.random.default_rng(6), held_out_only=None)
    chase, flee = MOTIONS.index("chase"), MOTIONS.index("flee")
    chasing = (scenes.motion == chase).any(1)
    assert chasing.any()
    assert (chasing == (scenes.motion == flee).any(1)).all()
    assert (scenes.count[chasing] == 2).all()
