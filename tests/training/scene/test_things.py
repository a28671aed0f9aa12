import json

import pytest

from reelserve.training.scene.vocabulary import SHAPES, THINGS_FILE, thing_names

THINGS = json.loads(THINGS_FILE.read_text())
LANGUAGES = ["en", "de", "fr", "es", "it", "pt"]


def test_there_are_three_hundred_things_with_names_of_their_own() -> None:
    assert len(THINGS) >= 300
    assert len(set(thing_names())) == len(THINGS) + len(SHAPES)
    assert len({thing["code"] for thing in THINGS}) == len(THINGS)


@pytest.mark.parametrize("language", LANGUAGES)
def test_a_word_belongs_to_one_thing(language: str) -> None:
    words = [word.lower() for thing in THINGS for word in thing["words"][language]]
    if language == "en":
        words += SHAPES
    assert len(set(words)) == len(words)
    assert all(word and word == word.strip() for word in words)


def test_every_thing_is_named_in_six_languages_and_faces_a_side_or_none() -> None:
    for thing in THINGS:
        assert list(thing["words"]) == LANGUAGES
        assert all(thing["words"].values()), thing["name"]
        assert thing["words"]["en"][0] == thing["name"]
        assert thing["faces"] in ("left", "right", "")


def test_a_thing_takes_one_line() -> None:
    lines = THINGS_FILE.read_text().splitlines()
    assert [lines[0], lines[-1]] == ["[", "]"]
    assert [json.loads(line.rstrip(","))["name"] for line in lines[1:-1]] == list(
        thing_names()[len(SHAPES) :]
    )
