import itertools

import pytest
import torch
from torch import Tensor
from torch.nn.functional import avg_pool2d

from reelserve.training.scene.scenery import GROUND_RGB, OBJECT_RGB, render_background
from reelserve.training.scene.vocabulary import ALWAYS_CLEAR, COLOURS, SETTINGS, WEATHERS

MOVES = {"rain", "snow", "night", "fog"}
FLOWS = {"sea", "beach", "underwater"}
LOOKS = [
    (setting, weather)
    for setting in SETTINGS
    for weather in (WEATHERS[:1] if setting in ALWAYS_CLEAR else WEATHERS)
]


def backgrounds(
    looks: list[tuple[str, str]],
    *,
    ground: str = "blue",
    chance: tuple[float, float, float] = (0.2, 0.2, 0.1),
    frames: int = 1,
    side: int = 64,
) -> Tensor:
    """Backgrounds `[B, 3, F, S, S]` of settings and weathers given by name."""
    return render_background(
        torch.tensor([SETTINGS.index(setting) for setting, _ in looks]),
        torch.tensor([WEATHERS.index(weather) for _, weather in looks]),
        torch.full((len(looks),), COLOURS.index(ground)),
        torch.tensor([*chance, 0, 0, 0, 0, 0]).repeat(len(looks), 1),
        frames,
        side,
    )


@pytest.mark.parametrize("side", [32, 64])
def test_render_background_gives_frames_in_range(side):
    clips = backgrounds(LOOKS, frames=3, side=side)
    assert clips.shape == (len(LOOKS), 3, 3, side, side)
    assert clips.dtype == torch.float32
    assert clips.min() >= 0 and clips.max() <= 1


def test_render_background_gives_the_same_picture_for_the_same_numbers():
    assert torch.equal(backgrounds(LOOKS, frames=3), backgrounds(LOOKS, frames=3))


def test_each_background_is_its_own_whatever_else_is_in_the_batch():
    together = backgrounds(LOOKS, frames=2)
    for index, look in enumerate(LOOKS):
        assert torch.equal(backgrounds([look], frames=2)[0], together[index]), look


@pytest.mark.parametrize(("side", "frames"), [(64, 2)])
def test_two_resolutions_show_the_same_picture(side, frames):
    small = backgrounds(LOOKS, frames=frames, side=side)[:, :, -1]
    large = avg_pool2d(backgrounds(LOOKS, frames=frames, side=2 * side)[:, :, -1], 2)
    apart = (small - large).abs().flatten(1).mean(1)
    for look, distance in zip(LOOKS, apart.tolist(), strict=True):
        assert distance < 0.012, look


@pytest.mark.parametrize("chance", [(0.2, 0.2, 0.1), (0.7, 0.7, 0.6)])
def test_looks_differ_even_where_the_upper_or_lower_part_is_hidden(chance):
    pictures = backgrounds([look for look in LOOKS if look[0] != "plain"], chance=chance)[:, :, 0]
    for part in (pictures, pictures[:, :, 38:]):
        flat = part.flatten(1)
        for first, second in itertools.combinations(flat, 2):
            assert (first - second).abs().mean() > 0.02


@pytest.mark.parametrize("part", [slice(0, 26), slice(38, 64)])
def test_each_weather_is_seen_in_the_upper_and_in_the_lower_part(part):
    for setting in set(SETTINGS) - set(ALWAYS_CLEAR):
        pictures = backgrounds([(setting, weather) for weather in WEATHERS])[:, :, 0, part]
        for first, second in itertools.combinations(pictures.flatten(1), 2):
            assert (first - second).abs().mean() > 0.03, setting


def test_only_weather_and_water_move():
    clips = backgrounds(LOOKS, frames=80, side=32)
    for (setting, weather), clip in zip(LOOKS, clips, strict=True):
        moves = weather in MOVES or setting in FLOWS
        assert (clip[:, :1] != clip).any() == moves, (setting, weather)


def test_a_shorter_clip_is_the_start_of_a_longer_one():
    looks = [("beach", "fog"), ("sea", "rain"), ("underwater", "clear"), ("road", "snow")]
    assert torch.equal(backgrounds(looks, frames=5), backgrounds(looks, frames=80)[:, :, :5])


def test_settings_that_are_always_clear_have_no_weather():
    for setting in ALWAYS_CLEAR:
        clips = backgrounds([(setting, weather) for weather in WEATHERS], frames=2)
        assert (clips == clips[:1]).all(), setting


def test_chance_picks_one_of_two_variants():
    looks = [look for look in LOOKS if look[0] not in ("plain", "gradient")]
    first, again, second = (
        backgrounds(looks, chance=(value, 0.2, 0.1)) for value in (0.0, 0.49, 0.5)
    )
    assert torch.equal(first, again)
    assert (first != second).flatten(1).any(1).all()


def test_chance_picks_one_of_two_places_for_what_moves():
    looks = [look for look in LOOKS if look[1] in MOVES or look[0] == "underwater"]
    first, again, second = (
        backgrounds(looks, chance=(0.2, value, 0.1)) for value in (0.0, 0.49, 0.5)
    )
    assert torch.equal(first, again)
    assert (first != second).flatten(1).any(1).all()


def test_there_are_four_gradients():
    gradients = [
        backgrounds([("gradient", "clear")], chance=(0.2, 0.2, value))
        for value in (0.0, 0.25, 0.5, 0.75, 0.99)
    ]
    for first, second in itertools.combinations(gradients[:4], 2):
        assert (first - second).abs().mean() > 0.05
    assert torch.equal(gradients[3], gradients[4])


@pytest.mark.parametrize("colour", COLOURS)
def test_a_plain_background_has_the_colour_of_its_name(colour):
    clip = backgrounds([("plain", "clear")], ground=colour, frames=2)
    assert torch.allclose(clip, torch.tensor(GROUND_RGB[colour])[None, :, None, None, None])


@pytest.mark.parametrize("table", [GROUND_RGB, OBJECT_RGB])
def test_named_colours_are_far_apart(table):
    assert tuple(table) == COLOURS
    for first, second in itertools.combinations(table.values(), 2):
        assert sum(abs(a - b) for a, b in zip(first, second, strict=True)) > 0.35
