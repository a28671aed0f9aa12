"""Scenes of the procedural world as arrays: what is named in a caption, and what is not.

A scene holds one or two objects on a background. Two objects differ in colour and keep to a
half of the frame each, so that every named attribute can be read from the clip.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

SHAPES = ("circle", "square", "triangle", "star", "heart", "cross", "ring", "moon")
COLOURS = ("red", "orange", "yellow", "green", "blue", "purple", "pink", "white")
SIZES = ("small", "medium", "large")
MOTIONS = (
    "stay",
    "across",
    "diagonal",
    "bounce",
    "orbit",
    "spin",
    "grow",
    "shrink",
    "pulse",
    "appear",
)
BACKGROUNDS = ("plain", "gradient", "starry night", "rain", "snow", "sea")

HELD_OUT_SHARE = 0.2
_HELD_OUT_SEED = 20261123

ATTRIBUTES = ("shape", "colour", "size", "motion", "background")


def _held_out_table() -> NDArray[np.bool_]:
    """`[shape, colour, motion]`, true where the combination is never trained on."""
    combinations = len(SHAPES) * len(COLOURS) * len(MOTIONS)
    order = np.random.default_rng(_HELD_OUT_SEED).permutation(combinations)
    table = np.zeros(combinations, dtype=bool)
    table[order[: int(HELD_OUT_SHARE * combinations)]] = True
    return table.reshape(len(SHAPES), len(COLOURS), len(MOTIONS))


HELD_OUT = _held_out_table()


@dataclass(frozen=True)
class Scenes:
    """A batch of `B` scenes.

    Args:
        shape: `[B, 2]` int64 index into `SHAPES`; so colour, size and motion.
        colour: `[B, 2]`; the two differ, except of twins.
        size: `[B, 2]`.
        motion: `[B, 2]`.
        two_objects: `[B]` bool; where false, the second object is not drawn.
        background: `[B]` index into `BACKGROUNDS`.
        object_chance: `[B, 2, 6]` in [0, 1): start, direction and phase of each object.
        scene_chance: `[B, 8]` in [0, 1): hues and phases of the background, and the split.
    """

    shape: NDArray[np.int64]
    colour: NDArray[np.int64]
    size: NDArray[np.int64]
    motion: NDArray[np.int64]
    two_objects: NDArray[np.bool_]
    background: NDArray[np.int64]
    object_chance: NDArray[np.float32]
    scene_chance: NDArray[np.float32]

    def __len__(self) -> int:
        return len(self.background)


def sample_scenes(
    count: int,
    rng: np.random.Generator,
    *,
    held_out: bool | None,
    two_object_share: float,
    twin_share: float = 0.0,
) -> Scenes:
    """Draws scenes whose every object is a trained, or a held-out, combination, or any.

    Args:
        count: `B`.
        rng: Source of every choice.
        held_out: Whether the shape × colour × motion combinations are the held-out ones; none
            draws from all of them.
        two_object_share: Probability of a second object, in [0, 1].
        twin_share: Probability that the second object is the first one over again, which no
            caption asks for but a denoiser may draw.
    """
    allowed = np.ones_like(HELD_OUT) if held_out is None else held_out == HELD_OUT
    combinations = np.argwhere(allowed)
    picked = combinations[rng.integers(len(combinations), size=(count, 2))]
    while (clash := picked[:, 0, 1] == picked[:, 1, 1]).any():
        picked[clash, 1] = combinations[rng.integers(len(combinations), size=int(clash.sum()))]
    scenes = Scenes(
        shape=picked[..., 0],
        colour=picked[..., 1],
        size=rng.integers(len(SIZES), size=(count, 2)),
        motion=picked[..., 2],
        two_objects=rng.random(count) < two_object_share,
        background=rng.integers(len(BACKGROUNDS), size=count),
        object_chance=rng.random((count, 2, 6), dtype=np.float32),
        scene_chance=rng.random((count, 8), dtype=np.float32),
    )
    if twin_share:
        _make_twins(scenes, rng.random(count) < twin_share)
    return scenes


def _make_twins(scenes: Scenes, twins: NDArray[np.bool_]) -> None:
    for values in (scenes.shape, scenes.colour, scenes.size, scenes.motion):
        values[twins, 1] = values[twins, 0]
    scenes.two_objects[twins] = True
