"""Varied English for a scene: templates, synonyms, word order, and what is left unsaid."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from reelserve.training.scenes import BACKGROUNDS, COLOURS, MOTIONS, SHAPES, SIZES, Scenes

SHAPE_WORDS = {
    "circle": ("circle", "disc", "ball", "circle"),
    "square": ("square", "box", "block", "square"),
    "triangle": ("triangle", "triangle", "pyramid"),
    "star": ("star", "star", "five-pointed star"),
    "heart": ("heart", "heart", "love heart"),
    "cross": ("cross", "cross", "plus sign"),
    "ring": ("ring", "ring", "hoop", "donut"),
    "moon": ("moon", "crescent", "crescent moon"),
}
COLOUR_WORDS = {
    "red": ("red", "red", "crimson", "scarlet"),
    "orange": ("orange", "orange", "tangerine"),
    "yellow": ("yellow", "yellow", "lemon yellow"),
    "green": ("green", "green", "emerald"),
    "blue": ("blue", "blue", "royal blue"),
    "purple": ("purple", "purple", "violet"),
    "pink": ("pink", "pink", "rose pink"),
    "white": ("white", "white", "snow-white"),
}
SIZE_WORDS = {
    "small": ("small", "tiny", "little"),
    "medium": ("medium", "medium-sized", "mid-sized"),
    "large": ("large", "big", "huge"),
}
MOTION_WORDS = {
    "stay": ("stays still", "rests in place", "does not move", "stands still"),
    "across": ("moves across", "slides sideways", "travels across the frame", "glides across"),
    "diagonal": ("moves diagonally", "drifts diagonally", "travels corner to corner"),
    "bounce": ("bounces", "bounces up and down", "hops up and down", "keeps bouncing"),
    "orbit": ("orbits", "circles around", "moves in a circle", "orbits slowly"),
    "spin": ("spins", "rotates in place", "turns around itself", "spins in place"),
    "grow": ("grows", "gets bigger", "slowly grows", "expands"),
    "shrink": ("shrinks", "gets smaller", "slowly shrinks", "becomes smaller"),
    "pulse": ("pulses", "throbs", "pulsates", "beats like a heart"),
    "appear": ("appears", "fades in", "slowly appears", "comes into view"),
}
BACKGROUND_WORDS = {
    "plain": ("on a plain background", "against a plain backdrop", "on a solid background"),
    "gradient": ("on a gradient", "on a gradient background", "against a smooth gradient"),
    "starry night": ("on a starry night", "under the stars", "in the starry sky"),
    "rain": ("in the rain", "while it rains", "on a rainy day"),
    "snow": ("in the snow", "while snow falls", "on a snowy day"),
    "sea": ("over the sea", "at sea", "above the ocean waves"),
}
_OPENERS = ("", "", "", "a video of ", "a clip of ", "an animation of ")
_JOINERS = (" and ", " while ", ", and ", " as ")
_UNSAID = 0.2
"""Share of captions that leave an object's size, or the background, unsaid."""


@dataclass(frozen=True)
class Caption:
    """A caption and which attributes it names.

    Args:
        text: The sentence.
        names_size: Per object.
        names_background: Whether the background is named.
    """

    text: str
    names_size: tuple[bool, bool]
    names_background: bool


def _pick(words: tuple[str, ...], rng: np.random.Generator) -> str:
    return words[int(rng.integers(len(words)))]


def _noun(
    scenes: Scenes, scene: int, which: int, named_size: bool, rng: np.random.Generator
) -> str:
    colour = _pick(COLOUR_WORDS[COLOURS[scenes.colour[scene, which]]], rng)
    shape = _pick(SHAPE_WORDS[SHAPES[scenes.shape[scene, which]]], rng)
    words = f"{colour} {shape}"
    if named_size:
        words = f"{_pick(SIZE_WORDS[SIZES[scenes.size[scene, which]]], rng)} {words}"
    article = "an" if words[0] in "aeiou" else "a"
    return f"{article} {words}"


def write_caption(scenes: Scenes, scene: int, rng: np.random.Generator) -> Caption:
    """Writes one sentence for scene number `scene`.

    Colour, shape and motion are always named; size and background usually.
    """
    names_size = (bool(rng.random() >= _UNSAID), bool(rng.random() >= _UNSAID))
    names_background = bool(rng.random() >= _UNSAID)
    clauses = []
    for which in range(2 if scenes.two_objects[scene] else 1):
        noun = _noun(scenes, scene, which, names_size[which], rng)
        verb = _pick(MOTION_WORDS[MOTIONS[scenes.motion[scene, which]]], rng)
        clauses.append((noun, verb))
    if len(clauses) == 2 and rng.random() < 0.5:
        clauses.reverse()
    place = _pick(BACKGROUND_WORDS[BACKGROUNDS[scenes.background[scene]]], rng)
    text = _arrange(clauses, place if names_background else "", rng)
    return Caption(text, names_size, names_background)


def _arrange(clauses: list[tuple[str, str]], place: str, rng: np.random.Generator) -> str:
    opener = _pick(_OPENERS, rng)
    relative = " that " if opener else " "
    subject = _pick(_JOINERS, rng).join(f"{noun}{relative}{verb}" for noun, verb in clauses)
    if not place:
        text = f"{opener}{subject}"
    elif not opener and rng.random() < 0.35:
        text = f"{place}, {subject}"
    else:
        text = f"{opener}{subject} {place}"
    style = rng.random()
    if style < 0.4:
        return text
    text = text[0].upper() + text[1:]
    return text + "." if style < 0.8 else text
