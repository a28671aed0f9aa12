from random import Random

from reelserve.training.words.lexicon import known_words
from reelserve.training.words.noise import (
    dirty,
    made_up_word,
    misspelt,
    other_words,
    punctuated,
    without_accents,
    without_articles,
)


def test_other_words_mean_nothing_here():
    words = other_words()
    assert len(words) > 5000
    assert not set(words) & known_words()


def test_misspelt_changes_long_words_alone():
    rng = Random(0)
    texts = {misspelt(rng, "the elephant", 1) for _ in range(50)}
    assert all(text.startswith("the ") for text in texts)
    assert len(texts) > 10


def test_without_articles_drops_them():
    assert without_articles(Random(0), "the cat and a dog", 1.0) == "cat and dog"


def test_without_accents_keeps_the_letters():
    assert without_accents("coração é") == "coracao e"


def test_dirty_leaves_many_texts_nearly_as_they_are():
    rng = Random(1)
    texts = [dirty(rng, "a red fox runs") for _ in range(400)]
    assert sum(text.lower().rstrip(".!") == "a red fox runs" for text in texts) > 200


def test_made_up_word_is_pronounceable():
    rng = Random(2)
    assert all(made_up_word(rng).isalpha() for _ in range(100))


def test_punctuated_keeps_every_word():
    rng = Random(3)
    texts = {punctuated(rng, "a fox, red, runs") for _ in range(50)}
    assert {"".join(c for c in text if c.isalpha()) for text in texts} == {"afoxredruns"}
    assert len(texts) > 5
