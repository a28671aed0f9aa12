"""Scores of read clips: per attribute, and all named attributes right."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from reelserve.training.recogniser import ASSIGNMENTS, SCENE_SECTIONS, SceneReading, object_sections
from reelserve.training.scene.labels import Labels
from reelserve.training.scene.scenes import FREE, NATURAL, WITH_SPEED, Scenes
from reelserve.training.scene.vocabulary import (
    MOTIONS,
    SCENE_ATTRIBUTES,
    SETTINGS,
    SOME_OBJECT,
    UNSAID,
    motions_meant,
    object_attributes,
    thing_names,
)

Allowed = Mapping[str, frozenset[int]]
"""For each attribute that a caption names, the classes of the recogniser that it allows."""


@dataclass(frozen=True)
class Wanted:
    """What a caption asks for.

    Args:
        objects: For each object that must be seen, and no other may be.
        scene: The same for the background.
    """

    objects: tuple[Allowed, ...]
    scene: Allowed


@dataclass(frozen=True)
class Score:
    """Result over `N` clips.

    Args:
        all_right: Share with every named attribute right and no object too many or too few.
        ci95: Wilson interval of `all_right`.
        per_attribute: Share of namings that were right.
        right: `[N]`, per clip.
    """

    all_right: float
    ci95: tuple[float, float]
    per_attribute: dict[str, float]
    right: NDArray[np.bool_]


def wilson_interval(successes: int, count: int) -> tuple[float, float]:
    """The 95% Wilson score interval of a share.

    Raises:
        ValueError: If nothing was counted.
    """
    if count < 1:
        raise ValueError(f"count {count}: must be at least 1")
    z = 1.959963984540054
    share = successes / count
    middle = (share + z * z / (2 * count)) / (1 + z * z / count)
    half = z * math.sqrt(share * (1 - share) / count + z * z / (4 * count * count))
    half /= 1 + z * z / count
    return middle - half, middle + half


def wanted_of(labels: Labels) -> list[Wanted]:
    """What each label asks for."""
    objects, scene = labels.objects.cpu().numpy(), labels.scene.cpu().numpy()
    names, scene_names = list(object_attributes()), list(SCENE_ATTRIBUTES)
    return [
        Wanted(
            tuple(
                object_allowed(dict(zip(names, values.tolist(), strict=True)))
                for values in rows
                if values[0] != UNSAID
            ),
            {
                name: frozenset({int(value) - 1})
                for name, value in zip(scene_names, ground, strict=True)
                if value != UNSAID
            },
        )
        for rows, ground in zip(objects, scene, strict=True)
    ]


def object_allowed(values: Mapping[str, int]) -> Allowed:
    """Classes that an object's label allows.

    Args:
        values: Index of each attribute, as in `object_attributes()`.
    """
    allowed: dict[str, frozenset[int]] = {}
    for name, value in values.items():
        if value == UNSAID:
            continue
        word = object_attributes()[name][value]
        if name == "thing":
            every = range(1, 1 + len(thing_names()))
            allowed[name] = frozenset(every if value == SOME_OBJECT else {value - SOME_OBJECT})
        elif name == "motion":
            allowed[name] = frozenset(MOTIONS.index(meant) for meant in motions_meant(word))
        elif name == "size":
            allowed[name] = frozenset({value - 1})
        else:
            allowed[name] = frozenset({value})
    return allowed


def wanted_of_scenes(scenes: Scenes) -> list[Wanted]:
    """Everything that scenes show, as if a caption named it all."""
    return [_wanted_of_scene(scenes, scene) for scene in range(len(scenes))]


def _wanted_of_scene(scenes: Scenes, scene: int) -> Wanted:
    objects = []
    for which in range(int(scenes.count[scene])):
        values = {name: getattr(scenes, name)[scene, which] for name in object_sections()}
        allowed = {
            "thing": values["thing"] + 1,
            "colour": values["colour"] - NATURAL,
            "size": values["size"],
            "motion": values["motion"],
        }
        if MOTIONS[values["motion"]] in WITH_SPEED:
            allowed["speed"] = values["speed"]
        if values["place"] != FREE:
            allowed["place"] = values["place"]
        objects.append({name: frozenset({int(value)}) for name, value in allowed.items()})
    ground = {name: frozenset({int(getattr(scenes, name)[scene])}) for name in SCENE_SECTIONS}
    if SETTINGS[scenes.setting[scene]] != "plain":
        del ground["ground_colour"]
    return Wanted(tuple(objects), ground)


def best_things(reading: SceneReading) -> list[tuple[int, ...]]:
    """The things seen in each clip, in order of their numbers."""
    seen = reading.objects["thing"].argmax(-1).cpu().tolist()
    return [tuple(sorted(thing for thing in things if thing)) for things in seen]


def score(reading: SceneReading, wanted: Sequence[Wanted]) -> Score:
    """Compares what was read with what was asked.

    Args:
        reading: Logits of `N` clips.
        wanted: What was asked of each.
    """
    seen = {name: logits.argmax(-1).cpu().numpy() for name, logits in reading.objects.items()}
    ground = {name: logits.argmax(-1).cpu().numpy() for name, logits in reading.scene.items()}
    namings: dict[str, list[bool]] = {"count": []}
    right = np.ones(len(wanted), dtype=bool)
    for clip, asked in enumerate(wanted):
        found = _namings(
            {name: values[clip] for name, values in seen.items()},
            {name: int(values[clip]) for name, values in ground.items()},
            asked,
        )
        right[clip] = all(ok for _, ok in found)
        for name, ok in found:
            namings.setdefault(name, []).append(ok)
    successes = int(right.sum())
    return Score(
        all_right=successes / len(wanted),
        ci95=wilson_interval(successes, len(wanted)),
        per_attribute={name: float(np.mean(oks)) for name, oks in namings.items() if oks},
        right=right,
    )


def _namings(
    seen: Mapping[str, NDArray[np.int64]], ground: Mapping[str, int], asked: Wanted
) -> list[tuple[str, bool]]:
    """Each naming and whether it was right, under the assignment with the most right ones."""
    found = [("count", int((seen["thing"] > 0).sum()) == len(asked.objects))]
    best: list[tuple[str, bool]] = []
    for queries in ASSIGNMENTS:
        pairs = zip(queries, asked.objects, strict=False)
        these = [
            (name, int(seen[name][query]) in classes)
            for query, allowed in pairs
            for name, classes in allowed.items()
        ]
        if not best or sum(ok for _, ok in these) > sum(ok for _, ok in best):
            best = these
    scene = [(name, ground[name] in classes) for name, classes in asked.scene.items()]
    return [*found, *best, *scene]


assert set(object_attributes()) == set(object_sections())
assert set(SCENE_ATTRIBUTES) == set(SCENE_SECTIONS)
