"""Scores of read clips: per attribute, and all named attributes right."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from reelserve.training.captions import Caption
from reelserve.training.recogniser import SceneReading
from reelserve.training.scenes import ATTRIBUTES, Scenes


@dataclass(frozen=True)
class Score:
    """Result over `N` clips.

    Args:
        all_right: Share with every named attribute right and no object too many.
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


def score(reading: SceneReading, scenes: Scenes, captions: list[Caption] | None = None) -> Score:
    """Compares what was read with what was asked.

    Args:
        reading: Logits of `N` clips.
        scenes: What was asked, `N` scenes.
        captions: Which attributes were named; all of them where left out.
    """
    present = (reading.present > 0).cpu().numpy()
    choices = {
        name: getattr(reading, name).argmax(-1).cpu().numpy()
        for name in ("shape", "size", "motion", "background")
    }
    namings: dict[str, list[bool]] = {name: [] for name in ATTRIBUTES}
    right = np.ones(len(scenes), dtype=bool)
    for clip in range(len(scenes)):
        caption = captions[clip] if captions else Caption("", (True, True), True)
        found = _clip_namings(clip, present, choices, scenes, caption)
        right[clip] = all(ok for _, ok in found)
        for name, ok in found:
            namings[name].append(ok)
    successes = int(right.sum())
    return Score(
        all_right=successes / len(scenes),
        ci95=wilson_interval(successes, len(scenes)),
        per_attribute={name: float(np.mean(oks)) for name, oks in namings.items() if oks},
        right=right,
    )


def _clip_namings(
    clip: int,
    present: NDArray[np.bool_],
    choices: dict[str, NDArray[np.int64]],
    scenes: Scenes,
    caption: Caption,
) -> list[tuple[str, bool]]:
    objects = 2 if scenes.two_objects[clip] else 1
    wanted = set(scenes.colour[clip, :objects].tolist())
    seen = set(np.flatnonzero(present[clip]).tolist())
    found = [("colour", wanted == seen)]
    for which in range(objects):
        colour = scenes.colour[clip, which]
        for name in ("shape", "motion", "size"):
            if name != "size" or caption.names_size[which]:
                asked = getattr(scenes, name)[clip, which]
                found.append((name, bool(choices[name][clip, colour] == asked)))
    if caption.names_background:
        found.append(("background", bool(choices["background"][clip] == scenes.background[clip])))
    return found
