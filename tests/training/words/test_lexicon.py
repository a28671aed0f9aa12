import pytest

from reelserve.training.scene.vocabulary import (
    COLOURS,
    NAMED_MOTIONS,
    PLACES,
    SETTINGS,
    SIZES,
    SPEEDS,
    WEATHERS,
    thing_names,
)
from reelserve.training.words.labels import PAIR_MOTIONS, RELATION_PLACES
from reelserve.training.words.lexicon import LANGUAGES, known_words, lexicon, thing_words

KINDS = {
    "colours": COLOURS,
    "sizes": SIZES,
    "speeds": SPEEDS,
    "speed_adjectives": SPEEDS,
    "speed_motions": SPEEDS,
    "places": PLACES,
    "settings": SETTINGS,
    "setting_nouns": SETTINGS,
    "weathers": WEATHERS,
    "weather_nouns": WEATHERS,
    "pair_motions": PAIR_MOTIONS,
    "relations": RELATION_PLACES,
}


@pytest.mark.parametrize("language", LANGUAGES)
@pytest.mark.parametrize("kind", KINDS)
def test_lexicon_has_words_for_every_value(language, kind):
    assert set(lexicon(language)[kind]) == set(KINDS[kind])


@pytest.mark.parametrize("language", LANGUAGES)
def test_lexicon_has_verbs_for_every_motion(language):
    elsewhere = {"across", "chase", "flee"}
    assert set(lexicon(language)["motions"]) == set(NAMED_MOTIONS) - elsewhere


@pytest.mark.parametrize("language", LANGUAGES)
def test_thing_words_name_each_thing_by_words_of_its_own(language):
    words = thing_words(language)
    assert list(words) == list(thing_names())
    everything = [set(map(str.lower, names[1:])) for names in words.values()]
    assert sum(map(len, everything)) == len(set().union(*everything))
    assert all(words.values())


def test_known_words_are_in_every_language():
    assert {"rabbit", "hase", "lapin", "conejo", "coniglio", "coelho"} <= known_words()
