import pytest

from reelserve.training.words.verbs import gender_of, plural_of, read_verb


@pytest.mark.parametrize(
    ("language", "phrase", "singular", "plural", "gerund"),
    [
        ("en", "hop along", "hops along", "hop along", "hopping along"),
        ("en", "fly", "flies", "fly", "flying"),
        ("en", "be asleep", "is asleep", "are asleep", "being asleep"),
        ("en", "race", "races", "race", "racing"),
        ("de", "taucht/tauchen+auf", "taucht auf", "tauchen auf", "auftauchen"),
        ("fr", "sauter", "saute", "sautent", "sautant"),
        ("es", "se_mueve/se_mueven/moviéndose", "se mueve", "se mueven", "moviéndose"),
        ("it", "saltare in alto", "salta in alto", "saltano in alto", "saltando in alto"),
        ("pt", "dançar", "dança", "dançam", "dançando"),
    ],
)
def test_read_verb_makes_forms(language, phrase, singular, plural, gerund):
    verb = read_verb(language, phrase)
    assert verb.phrase("singular") == singular
    assert verb.phrase("plural") == plural
    found = verb.particle + verb.infinitive if language == "de" else verb.phrase("gerund")
    assert found == gerund


@pytest.mark.parametrize(
    ("language", "noun", "plural"),
    [
        ("en", "mouse", "mice"),
        ("en", "polar bear", "polar bears"),
        ("en", "bunch of flowers", "bunches of flowers"),
        ("en", "butterfly", "butterflies"),
        ("en", "snowman", "snowmen"),
        ("de", "Katze", "Katzen"),
        ("fr", "cheval", "chevaux"),
        ("it", "gatto", "gatti"),
        ("pt", "leão", "leões"),
    ],
)
def test_plural_of_follows_the_language(language, noun, plural):
    assert plural_of(language, noun) == plural


@pytest.mark.parametrize(
    ("language", "noun", "gender"),
    [("de", "Pferd", "n"), ("de", "Katze", "f"), ("de", "Hase", "m"), ("es", "casa", "f")],
)
def test_gender_of_is_guessed_from_the_ending(language, noun, gender):
    assert gender_of(language, noun) == gender
