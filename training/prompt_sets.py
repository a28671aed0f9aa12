"""The sets of sentences that the bundled checkpoint is scored on."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any

from reelserve.training.scene.scenes import held_out_name
from reelserve.training.scene.vocabulary import SCENE_ATTRIBUTES, object_attributes
from reelserve.training.scoring import Wanted, object_allowed, wanted_of
from reelserve.training.showable import can_be_shown
from reelserve.training.words.captions import MEASURED, CaptionSettings, write_caption
from reelserve.training.words.labels import CaptionPlan, draw_plan, label_plans

HAND_WRITTEN_FILE = Path(__file__).parent / "words" / "hand_written.json"


@dataclass(frozen=True)
class PromptSet:
    """Sentences and what each asks for."""

    texts: list[str]
    wanted: list[Wanted]


def _objects(plan: CaptionPlan) -> int:
    return sum(group.count for group in plan.groups)


def _has_objects(count: int | None) -> Callable[[CaptionPlan], bool]:
    """Plans of so many objects, each named, all of combinations that were never trained on."""

    def fits(plan: CaptionPlan) -> bool:
        return _objects(plan) == count and all(
            held_out_name(group.thing, group.colour, group.motion) for group in plan.groups
        )

    return fits


def _any(plan: CaptionPlan) -> bool:
    """Plans that speak of things by their names."""
    return bool(plan.groups) and all(group.thing != "something" for group in plan.groups)


def _drawn(
    count: int, seed: int, settings: CaptionSettings, fits: Callable[[CaptionPlan], bool]
) -> PromptSet:
    rng = Random(seed)
    plans: list[CaptionPlan] = []
    while len(plans) < count:
        plan = draw_plan(rng)
        if not plan.unrelated and _any(plan) and can_be_shown(plan) and fits(plan):
            plans.append(plan)
    texts = [write_caption(rng, plan, settings) for plan in plans]
    return PromptSet(texts, wanted_of(label_plans(plans)))


def hand_written() -> PromptSet:
    """The committed list of sentences in people's own words."""
    entries = json.loads(HAND_WRITTEN_FILE.read_text())
    return PromptSet(
        [entry["text"] for entry in entries], [_wanted_of_entry(entry) for entry in entries]
    )


def _wanted_of_entry(entry: Mapping[str, Any]) -> Wanted:
    scene = {
        name: frozenset(SCENE_ATTRIBUTES[name].index(word) - 1 for word in _choices(value))
        for name, value in entry.get("scene", {}).items()
    }
    return Wanted(tuple(_allowed_of(one) for one in entry["objects"]), scene)


def _allowed_of(one: Mapping[str, Any]) -> dict[str, frozenset[int]]:
    """What an entry's object allows: of every attribute one value, or any of several."""
    allowed: dict[str, frozenset[int]] = {}
    for name, value in one.items():
        for word in _choices(value):
            index = object_attributes()[name].index(word)
            classes = object_allowed({name: index})[name]
            allowed[name] = allowed.get(name, frozenset()) | classes
    return allowed


def _choices(value: str | list[str]) -> list[str]:
    return value if isinstance(value, list) else [value]


PROMPT_SETS: dict[str, Callable[[int], PromptSet]] = {
    "held_out": lambda count: _drawn(count, 1, MEASURED["held_out"], _has_objects(1)),
    "held_out_two_objects": lambda count: _drawn(count, 2, MEASURED["held_out"], _has_objects(2)),
    "held_out_three_objects": lambda count: _drawn(count, 3, MEASURED["held_out"], _has_objects(3)),
    "held_out_styles": lambda count: _drawn(count, 4, MEASURED["held_out_styles"], _any),
    "languages": lambda count: _drawn(count, 5, MEASURED["languages"], _any),
    "unknown_word": lambda count: _drawn(count, 6, MEASURED["unknown_word"], _any),
    "hand_written": lambda count: hand_written(),
}
"""Each set by its name in the results file, made for a number of sentences."""
