import numpy as np
import pytest
import torch

from reelserve.training.captions import (
    BACKGROUND_WORDS,
    COLOUR_WORDS,
    MOTION_WORDS,
    SHAPE_WORDS,
    SIZE_WORDS,
    write_caption,
)
from reelserve.training.scenes import (
    BACKGROUNDS,
    COLOURS,
    HELD_OUT,
    MOTIONS,
    SHAPES,
    SIZES,
    Scenes,
    sample_scenes,
)
from reelserve.training.world import FRAMES, PALETTE, SIDE, render


def scenes_of(count: int, *, held_out: bool | None = False, two: float = 0.5) -> Scenes:
    rng = np.random.default_rng(5)
    return sample_scenes(count, rng, held_out=held_out, two_object_share=two)


def test_a_fifth_of_the_combinations_is_held_out_and_every_value_is_trained():
    assert HELD_OUT.mean() == pytest.approx(0.2)
    for axes in ((1, 2), (0, 2), (0, 1)):
        assert (~HELD_OUT).any(axis=axes).all()


@pytest.mark.parametrize("held_out", [True, False])
def test_sample_scenes_keeps_to_its_side_of_the_split(held_out):
    scenes = scenes_of(2000, held_out=held_out)
    assert (HELD_OUT[scenes.shape, scenes.colour, scenes.motion] == held_out).all()
    assert (scenes.colour[:, 0] != scenes.colour[:, 1]).all()


def test_sample_scenes_draws_from_all_combinations_when_the_split_is_none():
    scenes = scenes_of(2000, held_out=None)
    assert set(np.unique(HELD_OUT[scenes.shape, scenes.colour, scenes.motion])) == {True, False}


def test_sample_scenes_makes_twins_when_asked():
    rng = np.random.default_rng(5)
    scenes = sample_scenes(500, rng, held_out=None, two_object_share=0.0, twin_share=0.3)
    twins = scenes.two_objects
    assert 0.2 < twins.mean() < 0.4
    for values in (scenes.shape, scenes.colour, scenes.size, scenes.motion):
        assert (values[twins, 0] == values[twins, 1]).all()


def test_render_gives_the_same_frames_for_the_same_scenes():
    frames, covered = render(scenes_of(6))
    again, _ = render(scenes_of(6))
    assert frames.shape == (6, 3, FRAMES, SIDE, SIDE)
    assert covered.shape == (6, 1, FRAMES, SIDE, SIDE)
    assert frames.min() >= 0
    assert frames.max() <= 1
    assert torch.equal(frames, again)


@pytest.mark.parametrize("motion", range(len(MOTIONS)), ids=MOTIONS)
def test_render_shows_an_object_of_its_colour_inside_the_frame(motion):
    scenes = scenes_of(8, two=0.0)
    scenes.motion[:, 0] = motion
    frames, covered = render(scenes)
    assert (covered.amax(dim=(1, 2, 3, 4)) > 0.9).all()
    # A star's points reach a little past its radius; nothing else comes near the border.
    inside = covered[..., 1:-1, 1:-1].sum(dim=(1, 2, 3, 4)) / covered.sum(dim=(1, 2, 3, 4))
    assert inside.min() > 0.98
    for scene in range(8):
        bright = frames[scene].permute(1, 2, 3, 0)[covered[scene, 0] > 0.99].amax(dim=0)
        wanted = torch.tensor(PALETTE[scenes.colour[scene, 0]])
        assert (bright - wanted).abs().max() < 0.2


def test_render_draws_different_backgrounds():
    scenes = scenes_of(len(BACKGROUNDS), two=0.0)
    scenes.background[:] = np.arange(len(BACKGROUNDS))
    frames, covered = render(scenes)
    outside = torch.where(covered.bool().expand_as(frames), torch.nan, frames)
    spread = outside.nan_to_num(0).std(dim=(1, 2, 3, 4))
    assert len({round(value, 5) for value in spread.tolist()}) == len(BACKGROUNDS)


def test_caption_names_what_the_scene_holds():
    scenes = scenes_of(400)
    rng = np.random.default_rng(0)
    seen = set()
    for scene in range(len(scenes)):
        caption = write_caption(scenes, scene, rng)
        text = caption.text.lower()
        seen.add(caption.text)
        for which in range(2 if scenes.two_objects[scene] else 1):
            words = [
                SHAPE_WORDS[SHAPES[scenes.shape[scene, which]]],
                COLOUR_WORDS[COLOURS[scenes.colour[scene, which]]],
                MOTION_WORDS[MOTIONS[scenes.motion[scene, which]]],
            ]
            if caption.names_size[which]:
                words.append(SIZE_WORDS[SIZES[scenes.size[scene, which]]])
            for choices in words:
                assert any(word in text for word in choices), (text, choices)
        places = BACKGROUND_WORDS[BACKGROUNDS[scenes.background[scene]]]
        assert caption.names_background == any(place in text for place in places)
    assert len(seen) > 390
