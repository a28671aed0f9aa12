"""What can be named in a scene: attributes, their values, and the layout of a label.

A label says what a caption names and nothing else. It has one row for each of up to `MAX_OBJECTS`
objects, in the order in which they are mentioned, and one row for the scene. Value 0 of every
attribute stands for "not said"; of an object's `thing`, 0 stands for "there is no such object"
and 1 for "an object, but it is not said which".
"""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import Any

MAX_OBJECTS = 3
UNSAID = 0
NO_OBJECT, SOME_OBJECT = 0, 1

SHAPES = ("circle", "square", "triangle", "star", "heart", "cross", "ring", "moon")
"""Plain figures, which have the colour that a caption names."""

COLOURS = (
    "red",
    "orange",
    "yellow",
    "green",
    "blue",
    "purple",
    "pink",
    "white",
    "black",
    "brown",
    "grey",
    "turquoise",
)
SIZES = ("small", "medium", "large")
SPEEDS = ("slow", "fast")
PLACES = (
    "left",
    "right",
    "top",
    "bottom",
    "centre",
    "top left",
    "top right",
    "bottom left",
    "bottom right",
    "in front",
    "behind",
)
"""Where an object is; the last two are of a pair, of which one covers a part of the other."""

MOTIONS = (
    "stay",
    "left",
    "right",
    "up",
    "down",
    "diagonal up",
    "diagonal down",
    "bounce",
    "hop left",
    "hop right",
    "leap",
    "orbit",
    "spin",
    "grow",
    "shrink",
    "pulse",
    "fade in",
    "fade out",
    "shake",
    "zigzag",
    "sway",
    "approach",
    "enter from left",
    "enter from right",
    "leave to left",
    "leave to right",
    "chase",
    "flee",
)
"""How an object is seen to move. A leap goes over the other object; a chaser follows a fleer."""

ANY_OF = {
    "across": ("left", "right"),
    "diagonal": ("diagonal up", "diagonal down"),
    "hop": ("hop left", "hop right"),
    "enter": ("enter from left", "enter from right"),
    "leave": ("leave to left", "leave to right"),
}
"""Motions as they are named where the direction is not."""
NAMED_MOTIONS = MOTIONS + tuple(ANY_OF)

SETTINGS = (
    "plain",
    "gradient",
    "sky",
    "sea",
    "city",
    "meadow",
    "desert",
    "beach",
    "mountains",
    "forest",
    "underwater",
    "space",
    "room",
    "road",
)
WEATHERS = ("clear", "sunset", "night", "rain", "snow", "fog")
"""Light and weather. `plain`, `gradient`, `underwater`, `space` and `room` are always clear."""
ALWAYS_CLEAR = ("plain", "gradient", "underwater", "space", "room")

THINGS_FILE = Path(__file__).parent / "things.json"


@cache
def things() -> tuple[dict[str, Any], ...]:
    """The things beside the shapes: name, emoji, group, where it looks, words by language."""
    return tuple(json.loads(THINGS_FILE.read_text()))


@cache
def thing_names() -> tuple[str, ...]:
    """English names of all that can be drawn: the shapes, then the things of `things.json`."""
    return SHAPES + tuple(thing["name"] for thing in things())


@cache
def object_attributes() -> dict[str, tuple[str, ...]]:
    """Values of each attribute of an object, in label order; index 0 is "not said"."""
    return {
        "thing": ("", "something", *thing_names()),
        "colour": ("", *COLOURS),
        "size": ("", *SIZES),
        "motion": ("", *NAMED_MOTIONS),
        "speed": ("", *SPEEDS),
        "place": ("", *PLACES),
    }


SCENE_ATTRIBUTES = {
    "setting": ("", *SETTINGS),
    "weather": ("", *WEATHERS),
    "ground_colour": ("", *COLOURS),
}
"""Values of each attribute of the scene; `ground_colour` is that of a plain background."""


def motions_meant(named: str) -> tuple[str, ...]:
    """The motions that a named one allows."""
    return ANY_OF.get(named, (named,))
