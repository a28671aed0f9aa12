"""Scenes as arrays: all that is drawn, whether a caption names it or not."""

from __future__ import annotations

from dataclasses import dataclass, fields
from functools import cache

import numpy as np
from numpy.typing import NDArray

from reelserve.training.scene.vocabulary import (
    ALWAYS_CLEAR,
    COLOURS,
    MAX_OBJECTS,
    MOTIONS,
    PLACES,
    SETTINGS,
    SHAPES,
    SIZES,
    WEATHERS,
    motions_meant,
    thing_names,
)

NATURAL = -1
"""Colour of a thing that is not tinted."""
FREE = 0
"""Place that no word describes; otherwise 1 + the index into `PLACES`."""
USUAL, SLOW, FAST = 0, 1, 2

HELD_OUT_SHARE = 0.2
_HELD_OUT_SEED = 20261128

IN_PLACE = (
    "stay",
    "bounce",
    "orbit",
    "spin",
    "grow",
    "shrink",
    "pulse",
    "fade in",
    "fade out",
    "shake",
    "sway",
)
"""Motions that keep to a place, so that the place can be named."""
WITH_SPEED = (
    "left",
    "right",
    "up",
    "down",
    "diagonal up",
    "diagonal down",
    "bounce",
    "hop left",
    "hop right",
    "orbit",
    "spin",
    "pulse",
    "zigzag",
)
"""Motions that can be slow or fast."""
_SIDEWAYS = ("left", "right", "hop left", "hop right", "zigzag")
_FILED = ("left", "right", "hop left", "hop right")
_UPRIGHT = ("up", "down")
_PAIRED = ("leap", "chase", "flee")

COLUMNS, ROWS, CORNERS, ALONE, OVERLAP, LANE, FILE = range(7)
"""How the frame is shared: side by side, one above the other, quarters, one object, one that
covers a part of another, a pair of which one acts upon the other, and two on the same way."""
_CELLS = {
    (COLUMNS, 2): ("left", "right"),
    (COLUMNS, 3): ("left", "centre", "right"),
    (ROWS, 2): ("top", "bottom"),
    (ROWS, 3): ("top", "centre", "bottom"),
    (FILE, 2): ("left", "right"),
    (CORNERS, 2): ("top left", "bottom right", "top right", "bottom left"),
    (CORNERS, 3): ("top left", "bottom right", "top right", "bottom left"),
}


@dataclass(frozen=True)
class Scenes:
    """A batch of `B` scenes; objects beyond `count` are not drawn.

    Args:
        count: `[B]` int64, objects, 0 to `MAX_OBJECTS`.
        thing: `[B, 3]` int64 index into `thing_names()`.
        colour: `[B, 3]` index into `COLOURS`, or `NATURAL`.
        size: `[B, 3]` index into `SIZES`.
        motion: `[B, 3]` index into `MOTIONS`.
        speed: `[B, 3]`, `USUAL`, `SLOW` or `FAST`.
        place: `[B, 3]`, `FREE` or 1 + the index into `PLACES`.
        cell: `[B, 3]` index into `PLACES` of the part of the frame that an object keeps to.
        layout: `[B]`, how the frame is shared.
        setting: `[B]` index into `SETTINGS`.
        weather: `[B]` index into `WEATHERS`.
        ground_colour: `[B]` index into `COLOURS`, seen where the setting is plain.
        chance: `[B, 3, 4]` fp32 in [0, 1): what of an object nothing names.
        scene_chance: `[B, 8]` fp32 in [0, 1): so of the scene.
    """

    count: NDArray[np.int64]
    thing: NDArray[np.int64]
    colour: NDArray[np.int64]
    size: NDArray[np.int64]
    motion: NDArray[np.int64]
    speed: NDArray[np.int64]
    place: NDArray[np.int64]
    cell: NDArray[np.int64]
    layout: NDArray[np.int64]
    setting: NDArray[np.int64]
    weather: NDArray[np.int64]
    ground_colour: NDArray[np.int64]
    chance: NDArray[np.float32]
    scene_chance: NDArray[np.float32]

    def __len__(self) -> int:
        return len(self.count)

    def rows(self, which: slice | NDArray[np.int64]) -> Scenes:
        """Some of the scenes."""
        return Scenes(**{f.name: getattr(self, f.name)[which] for f in fields(self)})


def motion_group(motion: NDArray[np.int64]) -> NDArray[np.int64]:
    """Motions that differ in their direction alone, as one number; `left` is `right` too."""
    first = {"right": "left", "up": "left", "down": "left", "diagonal down": "diagonal up"}
    first |= {"hop right": "hop left", "enter from right": "enter from left"}
    first |= {"leave to right": "leave to left"}
    table = np.array([MOTIONS.index(first.get(name, name)) for name in MOTIONS])
    return table[motion]


@cache
def _held_out_table() -> NDArray[np.float32]:
    """A number in [0, 1) for every thing, colour and motion; colour 0 is that of all things."""
    shape = (len(thing_names()), len(COLOURS) + 1, len(MOTIONS))
    return np.random.default_rng(_HELD_OUT_SEED).random(shape, dtype=np.float32)


def held_out(
    thing: NDArray[np.int64], colour: NDArray[np.int64], motion: NDArray[np.int64]
) -> NDArray[np.bool_]:
    """Whether an object is of a combination that is never trained on.

    A fifth of all: of shape, colour and motion for the plain shapes, of thing and motion for the
    rest. Motions that differ in direction alone are held out together; the motions of pairs never.
    """
    shape = thing < len(SHAPES)
    colour = np.where(shape, colour + 1, 0)
    paired = np.isin(motion, [MOTIONS.index(name) for name in _PAIRED])
    return (_held_out_table()[thing, colour, motion_group(motion)] < HELD_OUT_SHARE) & ~paired


def held_out_name(thing: str, colour: str, motion: str) -> bool:
    """Whether what a caption names is such a combination, whatever it leaves open.

    Args:
        thing: A name of `thing_names()`.
        colour: A name of `COLOURS`; empty where none is named.
        motion: A name of `NAMED_MOTIONS`; empty where none is named.
    """
    shape = thing in SHAPES
    if not motion or (shape and not colour):
        return False
    meant = [MOTIONS.index(name) for name in motions_meant(motion)]
    colours = np.array([COLOURS.index(colour) if shape else NATURAL])
    things = np.array([thing_names().index(thing)])
    return all(held_out(things, colours, np.array([name]))[0] for name in meant)


def sample_scenes(
    count: int,
    rng: np.random.Generator,
    *,
    held_out_only: bool | None = False,
    num_objects: int | None = None,
) -> Scenes:
    """Draws scenes.

    Args:
        count: `B`.
        rng: Source of every choice.
        held_out_only: Whether every object is of a held-out combination, or none is; with none,
            every combination may occur.
        num_objects: Objects of every scene; drawn where left out.
    """
    fields_ = _draw(count, rng, num_objects)
    while held_out_only is not None:
        drawn = np.arange(MAX_OBJECTS)[None] < fields_["count"][:, None]
        found = held_out(fields_["thing"], fields_["colour"], fields_["motion"])
        wrong = ((found != held_out_only) & drawn).any(1)
        if not wrong.any():
            break
        again = _draw(int(wrong.sum()), rng, num_objects, paired=not held_out_only)
        for name, values in again.items():
            fields_[name][wrong] = values
    return Scenes(**fields_)


def _draw(
    b: int, rng: np.random.Generator, num_objects: int | None, *, paired: bool = True
) -> dict[str, NDArray]:  # type: ignore[type-arg]
    n = MAX_OBJECTS
    count = rng.choice(4, size=b, p=(0.03, 0.47, 0.33, 0.17))
    if num_objects is not None:
        count[:] = num_objects
    things = len(thing_names())
    thing = rng.integers(len(SHAPES), things, (b, n))
    shape = rng.random((b, n)) < 0.22
    thing = np.where(shape, rng.integers(0, len(SHAPES), (b, n)), thing)
    tinted = shape | (rng.random((b, n)) < 0.1)
    weights = np.array([0.45 if name in _PAIRED else 1.0 for name in MOTIONS])
    weights[[MOTIONS.index(name) for name in ("stay", "left", "right")]] = 2.0
    weights[[MOTIONS.index(name) for name in _PAIRED]] = 0.0
    drawn = {
        "count": count,
        "thing": thing,
        "colour": np.where(tinted, rng.integers(0, len(COLOURS), (b, n)), NATURAL),
        "size": rng.choice(len(SIZES), size=(b, n), p=(0.25, 0.45, 0.3)),
        "motion": rng.choice(len(MOTIONS), size=(b, n), p=weights / weights.sum()),
        "chance": rng.random((b, n, 4), dtype=np.float32),
        **_draw_background(b, rng),
    }
    _make_copies(drawn, rng.random(b) < 0.2)
    drawn.update(_share_frame(drawn, rng, paired))
    drawn["speed"] = _draw_speed(drawn["motion"], rng)
    _make_visible(drawn, rng)
    return drawn


def _draw_background(b: int, rng: np.random.Generator) -> dict[str, NDArray]:  # type: ignore[type-arg]
    weights = np.where(np.array(SETTINGS) == "plain", 3.0, 1.0)
    setting = rng.choice(len(SETTINGS), size=b, p=weights / weights.sum())
    weather = rng.choice(len(WEATHERS), size=b, p=(0.35, 0.14, 0.17, 0.12, 0.12, 0.10))
    clear = np.isin(setting, [SETTINGS.index(name) for name in ALWAYS_CLEAR])
    return {
        "setting": setting,
        "weather": np.where(clear, 0, weather),
        "ground_colour": rng.integers(0, len(COLOURS), b),
        "scene_chance": rng.random((b, 8), dtype=np.float32),
    }


def _make_copies(drawn: dict[str, NDArray], copied: NDArray[np.bool_]) -> None:  # type: ignore[type-arg]
    """Makes all objects of some scenes the same, as "two rabbits" are."""
    for name in ("thing", "colour", "size", "motion"):
        drawn[name][copied] = drawn[name][copied, :1]


def _share_frame(
    drawn: dict[str, NDArray],  # type: ignore[type-arg]
    rng: np.random.Generator,
    paired: bool,
) -> dict[str, NDArray]:  # type: ignore[type-arg]
    """Gives every object a part of the frame, and the place that a caption may name."""
    count, motion = drawn["count"], drawn["motion"]
    layout, cell = _lay_out(drawn, rng, paired)
    sideways, in_place, upright = (
        _moves(motion, names) for names in (_SIDEWAYS, IN_PLACE, _UPRIGHT)
    )
    alone = (count == 1) & (rng.random(len(count)) < 0.75)
    anywhere = rng.integers(0, PLACES.index("in front"), len(count))
    # What travels keeps only its height, or only its column.
    heights = np.array([PLACES.index(name) for name in ("top", "bottom", "centre")])
    columns = np.array([PLACES.index(name) for name in ("left", "right", "centre")])
    first = np.where(sideways[:, 0], heights[anywhere % 3], anywhere)
    first = np.where(upright[:, 0], columns[anywhere % 3], first)
    cell[alone, 0] = first[alone]
    shared, alone = layout[:, None], alone[:, None]
    named = in_place & (((shared != ALONE) & (shared != LANE)) | alone)
    named |= sideways & (np.isin(shared, (ROWS, FILE)) | alone)
    named |= upright & ((shared == COLUMNS) | alone)
    named |= shared == OVERLAP
    return {"layout": layout, "cell": cell, "place": np.where(named, cell + 1, FREE)}


def _moves(motion: NDArray[np.int64], names: tuple[str, ...]) -> NDArray[np.bool_]:
    return np.isin(motion, [MOTIONS.index(name) for name in names])


def _lay_out(
    drawn: dict[str, NDArray],  # type: ignore[type-arg]
    rng: np.random.Generator,
    paired: bool,
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """How each frame is shared, and the part of it that each object keeps to."""
    count, motion, size = drawn["count"], drawn["motion"], drawn["size"]
    b = len(count)
    sideways, in_place, filed = (_moves(motion, names) for names in (_SIDEWAYS, IN_PLACE, _FILED))
    layout = np.full(b, ALONE)
    cell = np.full((b, MAX_OBJECTS), PLACES.index("centre"))
    pair, together = rng.random(b), rng.random(b) < 0.6
    for scene in np.flatnonzero(count >= 2):
        n = int(count[scene])
        chosen = ROWS if sideways[scene, :n].any() else COLUMNS
        if in_place[scene, :n].all():
            chosen = int(rng.choice([COLUMNS, COLUMNS, ROWS, CORNERS]))
        if n == 2 and filed[scene, 0] and motion[scene, 0] == motion[scene, 1] and together[scene]:
            chosen = FILE
            size[scene, :2] = np.minimum(size[scene, :2], 1)
        if n == 2 and paired and pair[scene] < 0.24:
            chosen = OVERLAP if pair[scene] < 0.08 else LANE
        layout[scene] = chosen
        if chosen in (OVERLAP, LANE):
            _make_pair(scene, chosen, motion, cell, size, leap=pair[scene] < 0.16)
            continue
        cells = _CELLS[chosen, n]
        order = rng.permutation(len(cells))[:n]
        cell[scene, :n] = [PLACES.index(cells[index]) for index in order]
    return layout, cell


def _make_pair(
    scene: int,
    layout: int,
    motion: NDArray[np.int64],
    cell: NDArray[np.int64],
    size: NDArray[np.int64],
    *,
    leap: bool,
) -> None:
    """Two objects of which one covers a part of the other, leaps over it, or chases it."""
    if layout == OVERLAP:
        cell[scene, :2] = PLACES.index("in front"), PLACES.index("behind")
        motion[scene, :2] = MOTIONS.index("stay")
        size[scene, :2] = np.minimum(size[scene, :2], 1)
        size[scene, 1] = 2
        return
    cell[scene, :2] = PLACES.index("bottom")
    size[scene, :2] = np.minimum(size[scene, :2], 1)
    pair = ("leap", "stay") if leap else ("chase", "flee")
    motion[scene, :2] = [MOTIONS.index(name) for name in pair]


def _draw_speed(motion: NDArray[np.int64], rng: np.random.Generator) -> NDArray[np.int64]:
    able = np.isin(motion, [MOTIONS.index(name) for name in WITH_SPEED])
    return np.where(able, rng.choice(3, size=motion.shape, p=(0.6, 0.2, 0.2)), USUAL)


def _make_visible(drawn: dict[str, NDArray], rng: np.random.Generator) -> None:  # type: ignore[type-arg]
    """Gives plain grounds another colour where an object would not be seen on them."""
    plain = drawn["setting"] == SETTINGS.index("plain")
    for _ in range(20):
        same = (drawn["colour"] == drawn["ground_colour"][:, None]).any(1) & plain
        if not same.any():
            break
        drawn["ground_colour"][same] = rng.integers(0, len(COLOURS), int(same.sum()))
    black, white = COLOURS.index("black"), COLOURS.index("white")
    dark = (drawn["setting"] == SETTINGS.index("space")) | (
        drawn["weather"] == WEATHERS.index("night")
    )
    bright = np.isin(drawn["weather"], [WEATHERS.index("snow"), WEATHERS.index("fog")])
    for colour, where in ((black, dark), (white, bright)):
        lost = (drawn["colour"] == colour) & where[:, None]
        drawn["colour"] = np.where(lost, COLOURS.index("yellow"), drawn["colour"])
