import numpy as np
import pytest
import torch

from reelserve.training.scene.motion import object_tracks
from reelserve.training.scene.rendering import render, scene_arrays
from reelserve.training.scene.scenery import OBJECT_RGB
from reelserve.training.scene.scenes import FAST, SLOW, Scenes, sample_scenes
from reelserve.training.scene.vocabulary import COLOURS, MOTIONS, PLACES, SETTINGS

SMALL = {"side": 48}


def one_object(motion: str, count: int = 6, **changes) -> Scenes:
    """Scenes of one object that moves so, on a plain ground."""
    scenes = sample_scenes(count, np.random.default_rng(9), held_out_only=None, num_objects=1)
    scenes.motion[:] = MOTIONS.index(motion)
    scenes.setting[:] = SETTINGS.index("plain")
    scenes.weather[:] = 0
    scenes.speed[:] = 0
    for name, value in changes.items():
        getattr(scenes, name)[:] = value
    return scenes


def tracks_of(scenes: Scenes):
    return object_tracks(scene_arrays(scenes, "cpu"), 80)


def test_render_gives_the_same_frames_for_the_same_scenes():
    scenes = sample_scenes(3, np.random.default_rng(1))
    frames, covered = render(scenes, frames=4, **SMALL)
    again, _ = render(scenes, frames=4, **SMALL)
    assert frames.shape == (3, 3, 4, 48, 48)
    assert covered.shape == (3, 1, 4, 48, 48)
    assert 0 <= frames.min() and frames.max() <= 1
    assert torch.equal(frames, again)


def test_render_starts_a_clip_alike_whatever_its_length():
    scenes = sample_scenes(3, np.random.default_rng(2))
    long, _ = render(scenes, frames=12, **SMALL)
    short, _ = render(scenes, frames=4, **SMALL)
    torch.testing.assert_close(long[:, :, :4], short, rtol=0, atol=1e-6)


def test_render_paints_shapes_in_their_colour():
    for colour, name in enumerate(COLOURS):
        scenes = one_object("stay", count=1, thing=0, colour=colour, size=2, place=5)
        scenes.ground_colour[:] = (colour + 1) % len(COLOURS)
        frames, covered = render(scenes, frames=1, **SMALL)
        seen = frames[0, :, 0][:, covered[0, 0, 0] > 0.99].amax(1)
        assert (seen - torch.tensor(OBJECT_RGB[name])).abs().max() < 0.12, name


@pytest.mark.parametrize("motion", MOTIONS)
def test_every_motion_shows_its_object(motion):
    if motion in ("leap", "chase", "flee"):
        pytest.skip("of pairs, tested below")
    scenes = one_object(motion, count=4, size=1)
    _, covered = render(scenes, side=32)
    assert (covered.amax(dim=(1, 2, 3, 4)) > 0.9).all()


@pytest.mark.parametrize(
    ("motion", "axis", "sense"),
    [
        ("left", "x", -1),
        ("right", "x", 1),
        ("up", "y", -1),
        ("down", "y", 1),
        ("hop left", "x", -1),
        ("hop right", "x", 1),
        ("leave to left", "x", -1),
        ("enter from left", "x", 1),
    ],
)
def test_directions_lead_where_they_say(motion, axis, sense):
    track = getattr(tracks_of(one_object(motion)), axis)[:, 0]
    assert (sense * (track[:, -1] - track[:, 0]) > 0.15).all()


def test_what_leaves_is_gone_and_what_enters_was_not_there():
    gone = render(one_object("leave to right"), **SMALL)[1].amax(dim=(1, 3, 4))
    assert (gone[:, -1] == 0).all() and (gone[:, 0] > 0.5).all()
    come = render(one_object("enter from left"), **SMALL)[1].amax(dim=(1, 3, 4))
    assert (come[:, 0] == 0).all() and (come[:, -1] > 0.5).all()
    faded = render(one_object("fade out"), **SMALL)[1].amax(dim=(1, 3, 4))
    assert (faded[:, -1] == 0).all() and (faded[:, 0] > 0.5).all()


def test_a_fast_one_passes_more_ways_than_a_slow_one():
    ways = {}
    for name, speed in (("slow", SLOW), ("usual", 0), ("fast", FAST)):
        x = tracks_of(one_object("right", speed=speed)).x[:, 0]
        ways[name] = x.diff(dim=1).clamp(min=0).sum(1).mean()
    assert ways["slow"] < 0.7 * ways["usual"] < ways["usual"] < 0.7 * ways["fast"]


def test_objects_stand_where_their_place_says():
    scenes = sample_scenes(3000, np.random.default_rng(5), held_out_only=None, num_objects=1)
    rows = np.flatnonzero((scenes.motion[:, 0] == 0) & (scenes.place[:, 0] > 0))
    scenes = scenes.rows(rows)
    tracks = tracks_of(scenes)
    for place, x, y in zip(scenes.place[:, 0], tracks.x[:, 0, 0], tracks.y[:, 0, 0], strict=True):
        name = PLACES[place - 1]
        assert (x < 0.42) == ("left" in name)
        assert (x > 0.58) == ("right" in name)
        assert (y < 0.42) == ("top" in name)
        assert (y > 0.58) == ("bottom" in name)


def test_a_leap_goes_over_the_other_and_a_chaser_stays_behind():
    scenes = sample_scenes(3000, np.random.default_rng(6), held_out_only=None, num_objects=2)
    leaping = scenes.rows(np.flatnonzero(scenes.motion[:, 0] == MOTIONS.index("leap")))
    tracks = tracks_of(leaping)
    middle = tracks.y[:, 0, 40] + tracks.radius[:, 0, 40]
    assert (middle < tracks.y[:, 1, 40]).all()
    assert ((tracks.x[:, 0, 0] - 0.5) * (tracks.x[:, 0, -1] - 0.5) < 0).all()
    chased = scenes.rows(np.flatnonzero(scenes.motion[:, 0] == MOTIONS.index("chase")))
    tracks = tracks_of(chased)
    assert len(chased) and (tracks.heading[:, 0] == tracks.heading[:, 1]).all()
    ahead = ((tracks.x[:, 1] - tracks.x[:, 0]) * tracks.heading[:, :1] > 0.2).float().mean()
    assert ahead > 0.7
