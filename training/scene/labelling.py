"""Labels of scenes: what a caption might name of each, and what it would leave unsaid."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray

from reelserve.training.scene.labels import Labels
from reelserve.training.scene.scenes import FAST, NATURAL, SLOW, Scenes
from reelserve.training.scene.vocabulary import (
    ANY_OF,
    COLOURS,
    MAX_OBJECTS,
    MOTIONS,
    NAMED_MOTIONS,
    PLACES,
    SETTINGS,
    SHAPES,
    SIZES,
    SOME_OBJECT,
    SPEEDS,
    UNSAID,
    WEATHERS,
)

_SAID_MOTION = {"stay": 0.55, "sway": 0.65, "left": 0.75, "right": 0.75, "bounce": 0.85}
_SAID_SETTING = {"plain": 0.6, "gradient": 0.4, "sky": 0.6}
_SAID_SIZE = (0.6, 0.3, 0.6)
_SAID_WEATHER = {"clear": 0.25}
_OFTEN, _MOSTLY = 0.9, 0.75
_DIRECTION_SAID = 0.6
"""Share of motions in one of two directions whose direction is named."""


def _chances(values: tuple[str, ...], named: dict[str, float], other: float) -> NDArray:  # type: ignore[type-arg]
    return np.array([named.get(value, other) for value in values])


def _generic() -> NDArray[np.int64]:
    """Index into `NAMED_MOTIONS` of the name without a direction, or of the motion itself."""
    table = np.arange(len(MOTIONS))
    for name, members in ANY_OF.items():
        table[[MOTIONS.index(member) for member in members]] = NAMED_MOTIONS.index(name)
    return table


def _said(values: NDArray[np.int64], chance: NDArray | float, rng: np.random.Generator) -> NDArray:  # type: ignore[type-arg]
    """Values plus one, or `UNSAID`."""
    return np.where(rng.random(values.shape) < chance, values + 1, UNSAID)


def draw_labels(scenes: Scenes, rng: np.random.Generator) -> Labels:
    """One label for each scene, its objects in a random order.

    What is usual is often left unsaid, so that a caption that does not name it gets it: a thing
    that just stands there, a plain ground. What is not, such as a tint, is always named.

    Args:
        scenes: `B` scenes.
        rng: Decides what is named.
    """
    b = len(scenes)
    shape = scenes.thing < len(SHAPES)
    thing = np.where(rng.random(shape.shape) < 0.97, scenes.thing + SOME_OBJECT + 1, SOME_OBJECT)
    natural = scenes.colour == NATURAL
    colour = _said(scenes.colour, np.where(shape, _MOSTLY, 1.0), rng)
    motions = np.where(
        rng.random(shape.shape) < _DIRECTION_SAID, scenes.motion, _generic()[scenes.motion]
    )
    motion_chance = _chances(MOTIONS, _SAID_MOTION, _OFTEN)[scenes.motion]
    objects = np.stack(
        [
            thing,
            np.where(natural, UNSAID, colour),
            _said(scenes.size, np.array(_SAID_SIZE)[scenes.size], rng),
            _said(motions, motion_chance, rng),
            np.where(rng.random(shape.shape) < _OFTEN, scenes.speed, UNSAID),
            np.where(rng.random(shape.shape) < _place_chance(scenes.place), scenes.place, UNSAID),
        ],
        axis=-1,
    )
    order = np.argsort(rng.random((b, MAX_OBJECTS)) + (_slots() >= scenes.count[:, None]), axis=1)
    objects[_slots() >= scenes.count[:, None]] = UNSAID
    objects = np.take_along_axis(objects, order[..., None], axis=1)
    return Labels(torch.from_numpy(objects), torch.from_numpy(_draw_scene_labels(scenes, rng)))


def _slots() -> NDArray[np.int64]:
    return np.arange(MAX_OBJECTS)[None]


def _place_chance(place: NDArray[np.int64]) -> NDArray:  # type: ignore[type-arg]
    pair = place > PLACES.index("in front")
    return np.where(pair, 1.0, 0.45)


def _draw_scene_labels(scenes: Scenes, rng: np.random.Generator) -> NDArray[np.int64]:
    plain = scenes.setting == SETTINGS.index("plain")
    setting_chance = _chances(SETTINGS, _SAID_SETTING, _OFTEN)[scenes.setting]
    weather_chance = _chances(WEATHERS, _SAID_WEATHER, _OFTEN)[scenes.weather]
    setting = _said(scenes.setting, setting_chance, rng)
    ground = np.where(plain, _said(scenes.ground_colour, _MOSTLY, rng), UNSAID)
    # A named colour of the ground says that it is plain.
    setting = np.where(ground > UNSAID, scenes.setting + 1, setting)
    return np.stack([setting, _said(scenes.weather, weather_chance, rng), ground], axis=-1)


assert (SLOW, FAST) == (1 + SPEEDS.index("slow"), 1 + SPEEDS.index("fast"))
assert len(_SAID_SIZE) == len(SIZES) and len(COLOURS) == 12
