"""Words plans as captions, in the styles that people write in.

The encoder is trained on `TRAINED_STYLES`; `HELD_OUT_STYLES` are for measuring alone.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from random import Random

from reelserve.training.scene.labels import Labels
from reelserve.training.words.clauses import Writer
from reelserve.training.words.labels import SOMETHING, CaptionPlan, draw_plan, label_plans
from reelserve.training.words.lexicon import LANGUAGES
from reelserve.training.words.noise import dirty, made_up_word, other_words
from reelserve.training.words.phrases import Noise, Phrases
from reelserve.training.words.styles import HELD_OUT_STYLES, TRAINED_STYLES, Style

LANGUAGE_WEIGHTS = (60, 8, 8, 8, 8, 8)


@dataclass(frozen=True)
class CaptionSettings:
    """What kind of captions to draw.

    Args:
        styles: Drawn evenly.
        languages: Weights of `LANGUAGES`.
        noise: Words that say nothing.
        dirt: Share of captions that `dirty` may change.
        unknown_word: Every caption has one word that nobody knows.
    """

    styles: tuple[Style, ...] = TRAINED_STYLES
    languages: tuple[float, ...] = LANGUAGE_WEIGHTS
    noise: Noise = field(default_factory=Noise)
    dirt: float = 1.0
    unknown_word: bool = False


TRAINING = CaptionSettings()
MEASURED = {
    "held_out": CaptionSettings(languages=(1, 0, 0, 0, 0, 0), noise=Noise(0, 0, 0, 0), dirt=0.0),
    "held_out_styles": CaptionSettings(
        HELD_OUT_STYLES, (1, 0, 0, 0, 0, 0), Noise(0.05, 0, 0, 0), dirt=0.0
    ),
    "languages": CaptionSettings(
        languages=(0, 1, 1, 1, 1, 1), noise=Noise(0.05, 0, 0, 0), dirt=0.0
    ),
    "unknown_word": CaptionSettings(
        languages=(1, 0, 0, 0, 0, 0), noise=Noise(0, 0, 0, 0), dirt=0.0, unknown_word=True
    ),
}
"""Settings of the sets that are measured."""


def write_caption(rng: Random, plan: CaptionPlan, settings: CaptionSettings = TRAINING) -> str:
    """Words a plan."""
    language = rng.choices(LANGUAGES, settings.languages)[0]
    phrases = Phrases(language, rng, settings.noise)
    if plan.unrelated:
        text = _unrelated(phrases)
    elif not plan.groups:
        text = _empty_scene(phrases, plan)
    else:
        text = rng.choice(settings.styles)(Writer(plan, phrases))
        text = _with_fillers(phrases, text)
    if settings.unknown_word:
        text = _with_unknown_word(rng, text)
    return dirty(rng, text) if rng.random() < settings.dirt else text


def _empty_scene(phrases: Phrases, plan: CaptionPlan) -> str:
    """Words as "A quiet meadow at night"."""
    rng = phrases.rng
    words = phrases.scene_words(plan)
    if not words:
        return _unrelated(phrases)
    if rng.random() < 0.3:
        return ", ".join(words)
    if rng.random() < 0.2:
        return " ".join(phrases.scene(plan))
    later = phrases.scene(replace(plan, setting="", ground_colour="")) if len(words) > 1 else []
    text = phrases.pick("empty").replace("%", words[0])
    return " ".join((text, *later))


def _unrelated(phrases: Phrases) -> str:
    rng = phrases.rng
    kind = rng.random()
    if kind < 0.55:
        return phrases.pick("unrelated")
    if kind < 0.65:
        return " ".join(made_up_word(rng) for _ in range(rng.randint(1, 4)))
    return " ".join(rng.choice(other_words()) for _ in range(rng.randint(3, 9)))


def _with_fillers(phrases: Phrases, text: str) -> str:
    """Adds what says nothing, at the end or the beginning."""
    rng, share = phrases.rng, phrases.noise.fillers
    if rng.random() < share * 0.7:
        text = f"{text} {phrases.pick('tails')}"
    if rng.random() < share * 0.7:
        word = phrases.pick("fillers")
        text = f"{text}, {word}" if rng.random() < 0.75 else f"{word} {text}"
    if rng.random() < phrases.noise.unknown:
        text = _with_unknown_word(rng, text)
    return text


def _with_unknown_word(rng: Random, text: str) -> str:
    """The text with one made-up word, an adverb or an adjective by its place."""
    words = text.split(" ")
    at = rng.randint(0, len(words))
    return " ".join((*words[:at], made_up_word(rng, rng.choice(("", "", "ly", "y"))), *words[at:]))


def draw_captioned(
    rng: Random, count: int, settings: CaptionSettings = TRAINING
) -> tuple[list[str], Labels]:
    """Captions and what they say.

    A word that nobody knows may also stand for a thing; it is then a `SOMETHING`.
    """
    plans, texts = [], []
    for _ in range(count):
        plan = draw_plan(rng)
        if settings is not TRAINING:
            while plan.unrelated or not plan.groups or _says_something(plan):
                plan = draw_plan(rng)
        plans.append(plan)
        texts.append(write_caption(rng, plan, settings))
    return texts, label_plans(plans)


def _says_something(plan: CaptionPlan) -> bool:
    return any(group.thing == SOMETHING for group in plan.groups)
