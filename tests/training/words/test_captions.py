import re
from random import Random

import pytest

from reelserve.training.scene.vocabulary import object_attributes
from reelserve.training.words.captions import (
    MEASURED,
    CaptionSettings,
    draw_captioned,
    write_caption,
)
from reelserve.training.words.clauses import Writer
from reelserve.training.words.labels import CaptionPlan, Group
from reelserve.training.words.lexicon import LANGUAGES
from reelserve.training.words.phrases import Noise, Phrases
from reelserve.training.words.styles import (
    HELD_OUT_STYLES,
    TRAINED_STYLES,
    participle,
    sentence,
)

QUIET = Noise(0, 0, 0, 0)


def clean(language, *styles):
    weights = tuple(float(name == language) for name in LANGUAGES)
    return CaptionSettings(styles or TRAINED_STYLES, weights, QUIET, dirt=0.0)


def captions_of(plan, settings, count=60):
    rng = Random(0)
    return [write_caption(rng, plan, settings) for _ in range(count)]


@pytest.mark.parametrize("style", [*dict.fromkeys(TRAINED_STYLES), *HELD_OUT_STYLES])
def test_every_style_names_the_thing_and_its_colour(style):
    plan = CaptionPlan((Group("penguin", colour="white", motion="spin"),), setting="forest")
    for text in captions_of(plan, clean("en", style)):
        assert "penguin" in text.lower()
        assert any(word in text.lower() for word in ("whit", "ivory"))


@pytest.mark.parametrize("language", LANGUAGES)
def test_write_caption_says_the_same_in_every_language(language):
    plan = CaptionPlan((Group("tiger", count=2, motion="down"),), weather="night")
    words = {"en": "tig", "de": "tiger", "fr": "tigre", "es": "tigre", "it": "tigr", "pt": "tigre"}
    for text in captions_of(plan, clean(language)):
        assert words[language] in text.lower()


def test_sentence_words_a_pair_with_its_relation():
    plan = CaptionPlan((Group("cat", motion="leap"), Group("moon")), "leap")
    rng = Random(1)
    texts = [sentence(Writer(plan, Phrases("en", rng, QUIET))) for _ in range(20)]
    assert any(" over " in text or " across " in text for text in texts)


def test_participle_agrees_with_the_number():
    plan = CaptionPlan((Group("goat", count=2, motion="stay"),))
    texts = captions_of(plan, clean("en", participle))
    assert all(re.search(r"goats|ibex(es)?", text) for text in texts)


def test_draw_captioned_is_repeatable_and_labels_what_it_says():
    one, labels = draw_captioned(Random(5), 50)
    other, _ = draw_captioned(Random(5), 50)
    assert one == other
    assert labels.objects.shape == (50, 3, len(object_attributes()))
    assert len(labels) == len(one) == 50


def test_measured_captions_always_have_an_object():
    for settings in MEASURED.values():
        texts, labels = draw_captioned(Random(2), 40, settings)
        assert (labels.objects[:, 0, 0] > 1).all()
        assert all(text.strip() for text in texts)


def test_unknown_word_adds_one_word():
    plan = CaptionPlan((Group("apple"),))
    known = clean("en", participle)
    unknown = CaptionSettings(known.styles, known.languages, QUIET, 0.0, unknown_word=True)
    for text in captions_of(plan, unknown, 20):
        assert len(text.split()) >= 2
    assert len(set(captions_of(plan, unknown, 20))) > 10
