"""Measures how well sentences are read: captions of several kinds and sentences by hand."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from itertools import permutations
from pathlib import Path
from random import Random
from typing import Any

import torch
from torch import Tensor

from reelserve.training.scene.labels import Labels
from reelserve.training.scene.vocabulary import (
    MAX_OBJECTS,
    NO_OBJECT,
    SCENE_ATTRIBUTES,
    UNSAID,
    motions_meant,
    object_attributes,
    thing_names,
)
from reelserve.training.words.captions import MEASURED, TRAINING, draw_captioned

HAND_WRITTEN_FILE = Path(__file__).parent / "hand_written.json"
MEASURE_SEED = 20
Read = Callable[[Sequence[str]], Labels]
"""Reads sentences into labels."""


def most_likely(objects: Tensor, scene: Tensor) -> Labels:
    """The most likely value of each attribute.

    Args:
        objects: Logits or probabilities, `[B, 3, sum of object sizes]`.
        scene: `[B, sum of scene sizes]`.
    """
    sizes = [len(values) for values in object_attributes().values()]
    scene_sizes = [len(values) for values in SCENE_ATTRIBUTES.values()]
    found = torch.stack([part.argmax(-1) for part in objects.split(sizes, -1)], -1)
    found[found[..., 0] == NO_OBJECT] = UNSAID
    return Labels(
        found, torch.stack([part.argmax(-1) for part in scene.split(scene_sizes, -1)], -1)
    )


def all_right(found: Labels, wanted: Labels) -> Tensor:
    """Whether as many objects were found as are wanted, with every attribute that is said.

    Returns:
        `[B]`, bool.
    """
    counts = (found.objects[..., 0] != NO_OBJECT) == (wanted.objects[..., 0] != NO_OBJECT)
    objects = (found.objects == wanted.objects) | (wanted.objects == UNSAID)
    scene = (found.scene == wanted.scene) | (wanted.scene == UNSAID)
    return counts.all(-1) & objects.all(-1).all(-1) & scene.all(-1)


def invented(found: Labels, wanted: Labels) -> Tensor:
    """Whether anything was found that is not said, `[B]`, bool."""
    objects = (wanted.objects == UNSAID) & (found.objects != UNSAID)
    scene = (wanted.scene == UNSAID) & (found.scene != UNSAID)
    return objects.any(-1).any(-1) | scene.any(-1)


def hand_written_sentences() -> list[dict[str, Any]]:
    """The sentences that people wrote, each with what it names."""
    found: list[dict[str, Any]] = json.loads(HAND_WRITTEN_FILE.read_text("utf-8"))
    return found


def readable(labels: Labels, row: int) -> dict[str, Any]:
    """One label in words: the objects and the scene, unsaid attributes left out."""
    attributes = object_attributes()
    objects = [
        {
            name: attributes[name][value]
            for name, value in zip(attributes, values, strict=True)
            if value != UNSAID
        }
        for values in labels.objects[row].tolist()
        if values[0] != NO_OBJECT
    ]
    scene = {
        name: SCENE_ATTRIBUTES[name][value]
        for name, value in zip(SCENE_ATTRIBUTES, labels.scene[row].tolist(), strict=True)
        if value != UNSAID
    }
    return {"objects": objects, "scene": scene}


def agrees(found: Mapping[str, Any], wanted: Mapping[str, Any]) -> bool:
    """Whether a readable label holds all that a sentence names, and as many objects.

    Args:
        found: See `readable`.
        wanted: The same, but a value may be a list of acceptable ones.
    """
    if len(found["objects"]) != len(wanted["objects"]):
        return False
    if not _holds(found["scene"], wanted["scene"]):
        return False
    return any(
        all(_holds(one, other) for one, other in zip(order, wanted["objects"], strict=True))
        for order in permutations(found["objects"])
    )


def _holds(found: Mapping[str, str], wanted: Mapping[str, Any]) -> bool:
    for name, value in wanted.items():
        accepted = value if isinstance(value, list) else [value]
        if name == "motion":
            accepted = [motion for one in accepted for motion in (one, *motions_meant(one))]
        if found.get(name, "") not in accepted:
            return False
    return True


def check_hand_written(sentences: Sequence[Mapping[str, Any]]) -> list[str]:
    """Mistakes in the labels of sentences: names that the vocabulary has not."""
    attributes = {**object_attributes(), **SCENE_ATTRIBUTES}
    known = {name: set(values) for name, values in attributes.items()}
    wrong = []
    for sentence in sentences:
        if len(sentence["objects"]) > MAX_OBJECTS:
            wrong.append(f"{sentence['text']}: too many objects")
        for row in (*sentence["objects"], sentence["scene"]):
            for name, value in row.items():
                values = value if isinstance(value, list) else [value]
                if name not in known or not set(values) <= known[name]:
                    wrong.append(f"{sentence['text']}: {name} {value}")
    return wrong


def measured_sets(count: int) -> dict[str, tuple[list[str], Labels]]:
    """Captions and labels of each kind that is measured; always the same."""
    kinds = {"trained": TRAINING, **MEASURED}
    return {
        name: draw_captioned(Random(f"{MEASURE_SEED} {name}"), count, settings)
        for name, settings in kinds.items()
    }


def measure_reading(read: Read, count: int) -> tuple[dict[str, float], list[dict[str, Any]]]:
    """Measures on all sets.

    Args:
        read: Reads sentences.
        count: Captions of each set that is drawn.

    Returns:
        Shares of sentences that are read right, by set, and the hand-written sentences that are
        not, with what was read.
    """
    scores = {}
    for name, (texts, wanted) in measured_sets(count).items():
        found = read(texts)
        scores[name] = all_right(found, wanted).float().mean().item()
        scores[f"{name}_invented"] = invented(found, wanted).float().mean().item()
    sentences = hand_written_sentences()
    found = read([sentence["text"] for sentence in sentences])
    wrong = []
    for row, sentence in enumerate(sentences):
        got = readable(found, row)
        if not agrees(got, sentence):
            wrong.append({"text": sentence["text"], "wanted": sentence, "found": got})
    scores["hand_written"] = 1 - len(wrong) / max(1, len(sentences))
    return scores, wrong


def thing_index(name: str) -> int:
    """Label value of a thing."""
    return 2 + thing_names().index(name)
