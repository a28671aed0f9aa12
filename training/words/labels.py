"""What a caption shall say, drawn before it is worded: plans and their labels.

A plan holds groups of like objects ("two red rabbits"), how two of them stand to each other, and
the scene. Most attributes are left unsaid, as people leave them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from random import Random
from typing import Any

import torch

from reelserve.training.scene.labels import Labels
from reelserve.training.scene.vocabulary import (
    COLOURS,
    MAX_OBJECTS,
    NAMED_MOTIONS,
    SCENE_ATTRIBUTES,
    SETTINGS,
    SHAPES,
    WEATHERS,
    object_attributes,
    thing_names,
)

SOMETHING = "something"
IDLE = "idle"
"""Relation of a pair of which one does something to the other that cannot be drawn."""
PAIR_MOTIONS = ("leap", "orbit", "chase", "flee")
RELATION_PLACES = {
    "above": ("top", "bottom"),
    "below": ("bottom", "top"),
    "left of": ("left", "right"),
    "right of": ("right", "left"),
    "next to": ("left", "right"),
    "in front of": ("in front", "behind"),
    "behind": ("behind", "in front"),
}
"""Places of the first and the second of a pair."""
OPPOSITE_ROLE = {"chase": "flee", "flee": "chase"}
_MOTION_WEIGHTS = {
    "across": 14,
    "stay": 4,
    "left": 4,
    "right": 4,
    "up": 4,
    "down": 4,
    "bounce": 3,
    "hop": 3,
    "spin": 3.5,
    "grow": 2.5,
    "shrink": 2.5,
    "fade in": 2.5,
    "fade out": 2.5,
    "sway": 3,
    "shake": 2,
    "orbit": 2,
    "pulse": 1.5,
    "zigzag": 1.5,
    "approach": 2.5,
    "leave": 2,
    "enter": 2,
    "leap": 1,
    "chase": 0,
    "flee": 0,
}
MOTION_WEIGHTS = [_MOTION_WEIGHTS.get(motion, 1.0) for motion in NAMED_MOTIONS]
ALWAYS_SEVERAL = (
    *("grapes", "cherries", "pancakes", "french fries", "popcorn", "spaghetti", "sushi"),
    *("bowling pins", "headphones", "socks", "jeans", "glasses", "sunglasses", "scissors"),
)
"""Things that are named like several, or that are not counted."""
STILL = ("stay", "")
"""Motions that have no speed."""


@dataclass(frozen=True)
class Group:
    """Like objects; an empty text stands for "not said".

    Args:
        thing: Name of a thing, or `SOMETHING`.
        count: Number of objects.
    """

    thing: str
    count: int = 1
    colour: str = ""
    size: str = ""
    motion: str = ""
    speed: str = ""
    place: str = ""


@dataclass(frozen=True)
class CaptionPlan:
    """What a caption shall say.

    Args:
        groups: At most `MAX_OBJECTS` objects in all.
        relation: A key of `RELATION_PLACES`, one of `PAIR_MOTIONS` or `IDLE`, from the first group
            to the second; `together` where all do the same, `alike` where two are of one kind but
            for their colour; empty where they are apart.
        unrelated: The caption shall speak of nothing that can be drawn.
    """

    groups: tuple[Group, ...] = ()
    relation: str = ""
    setting: str = ""
    weather: str = ""
    ground_colour: str = ""
    unrelated: bool = field(default=False)


def _draw_thing(rng: Random) -> str:
    if rng.random() < 0.22:
        return rng.choice(SHAPES)
    if rng.random() < 0.02:
        return SOMETHING
    return rng.choice(thing_names()[len(SHAPES) :])


def _draw_group(rng: Random, room: int) -> Group:
    """A group of at most `room` objects."""
    thing = _draw_thing(rng)
    count = 1
    if room > 1 and thing not in ALWAYS_SEVERAL and rng.random() < 0.12:
        count = 2 if room == 2 or rng.random() < 0.65 else 3
    motion = rng.choices(NAMED_MOTIONS, MOTION_WEIGHTS)[0] if rng.random() < 0.62 else ""
    if motion in PAIR_MOTIONS[2:]:
        motion = ""
    fast = motion not in STILL and rng.random() < 0.22
    return Group(
        thing,
        count,
        colour=rng.choice(COLOURS) if rng.random() < (0.65 if thing in SHAPES else 0.2) else "",
        size=rng.choices(("small", "medium", "large"), (5, 1, 5))[0] if rng.random() < 0.2 else "",
        motion=motion,
        speed=rng.choice(("slow", "fast")) if fast or rng.random() < 0.015 else "",
        place=_draw_place(rng) if not motion and rng.random() < 0.2 else "",
    )


def _draw_place(rng: Random) -> str:
    places = object_attributes()["place"][1:]
    return rng.choice(places[:-2]) if rng.random() < 0.93 else rng.choice(places[-2:])


def _draw_scene(rng: Random, share: float) -> dict[str, Any]:
    """Setting, weather and colour of the ground, each said or not."""
    scene = {"setting": "", "weather": "", "ground_colour": ""}
    if rng.random() < share:
        kind = rng.random()
        if kind < 0.18:
            return {**scene, "setting": "plain", "ground_colour": rng.choice(COLOURS)}
        scene["setting"] = rng.choice(SETTINGS if kind < 0.3 else SETTINGS[2:])
    if rng.random() < 0.28 * share / 0.5:
        scene["weather"] = rng.choices(WEATHERS, (2, 3, 3, 3, 3, 3))[0]
    return scene


def draw_plan(rng: Random) -> CaptionPlan:
    """Draws a plan by the priors of what people ask for."""
    kind = rng.random()
    if kind < 0.025:
        return CaptionPlan(unrelated=True)
    if kind < 0.055:
        return CaptionPlan(**_draw_scene(rng, 1.0))
    scene = _draw_scene(rng, 0.52)
    mentions = rng.choices((1, 2, 3), (55, 33, 12))[0]
    groups: list[Group] = []
    room = MAX_OBJECTS
    for left in range(mentions, 0, -1):
        groups.append(_draw_group(rng, room - left + 1))
        room -= groups[-1].count
    relation = ""
    alike = len(groups) == 2 and groups[0].thing not in ALWAYS_SEVERAL
    if alike and rng.random() < 0.08:
        # "two stars, one red and one blue".
        first, second = rng.sample(COLOURS, 2)
        groups[0] = replace(groups[0], count=1, colour=first, place="")
        groups[1] = replace(groups[0], colour=second, size=groups[1].size, place="")
        relation = "alike"
    elif len(groups) > 1 and rng.random() < 0.5:
        names = PAIR_MOTIONS if rng.random() < 0.5 else (*RELATION_PLACES, IDLE)
        relation = rng.choice(names)
        groups[:2] = _related(relation, groups[0], groups[1])
    elif len(groups) > 1 and rng.random() < 0.2:
        # "a cat and a dog run": what is said holds for both.
        motion, speed = groups[0].motion, groups[0].speed
        groups = [replace(group, motion=motion, speed=speed, place="") for group in groups]
        relation = "together"
    if relation == "" and rng.random() < 0.1:
        groups[0] = replace(groups[0], place=groups[0].place or _draw_place(rng))
    return CaptionPlan(tuple(groups), relation, **scene)


def _related(relation: str, first: Group, second: Group) -> tuple[Group, Group]:
    """The groups of a pair, with what their relation says."""
    if relation == IDLE:
        first, second = (replace(one, motion="", speed="", place="") for one in (first, second))
        return first, second
    if relation in PAIR_MOTIONS:
        speed = first.speed
        return (
            replace(first, motion=relation, place="", speed=speed),
            replace(second, motion=OPPOSITE_ROLE.get(relation, ""), place="", speed=""),
        )
    places = RELATION_PLACES[relation]
    motion = first.motion if first.motion in ("", "stay", "across", "spin", "sway") else ""
    return (
        replace(first, place=places[0], motion=motion, speed=first.speed if motion else ""),
        replace(second, place=places[1], motion="", speed=""),
    )


def label_plans(plans: Sequence[CaptionPlan]) -> Labels:
    """The labels of plans, which say what the plans say."""
    attributes = object_attributes()
    positions = {
        name: {value: index for index, value in enumerate(values)}
        for name, values in {**attributes, **SCENE_ATTRIBUTES}.items()
    }
    objects = torch.zeros(len(plans), MAX_OBJECTS, len(attributes), dtype=torch.int64)
    scene = torch.zeros(len(plans), len(SCENE_ATTRIBUTES), dtype=torch.int64)
    for row, plan in enumerate(plans):
        members = [group for group in plan.groups for _ in range(group.count)]
        for number, group in enumerate(members):
            values = [positions[name][getattr(group, name)] for name in attributes]
            objects[row, number] = torch.tensor(values)
        values = [positions[name][getattr(plan, name)] for name in SCENE_ATTRIBUTES]
        scene[row] = torch.tensor(values)
    return Labels(objects, scene)
