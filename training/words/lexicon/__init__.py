"""Words for all that a label can hold, in six languages.

A JSON file for each language holds lists of alternatives, separated by semicolons; one that is
repeated is drawn more often. In phrases `%` stands for what is put in, `@` for a verb of moving,
`~` for the other object. Verbs are written as `verbs.py` reads them.
"""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import Any

from reelserve.training.scene.vocabulary import THINGS_FILE

LANGUAGES = ("en", "de", "fr", "es", "it", "pt")
FOLDER = Path(__file__).parent


def _alternatives(value: Any) -> Any:
    """Splits every text in nested objects at its semicolons."""
    if isinstance(value, str):
        return tuple(part.strip() for part in value.split(";") if part.strip())
    return {name: _alternatives(inner) for name, inner in value.items()}


@cache
def lexicon(language: str) -> dict[str, Any]:
    """Alternatives of a language by their kind and, mostly, by the value that they stand for."""
    return dict(_alternatives(json.loads((FOLDER / f"{language}.json").read_text("utf-8"))))


@cache
def thing_words(language: str) -> dict[str, tuple[str, ...]]:
    """Words for each shape and thing; no word stands for two of them."""
    shapes = json.loads((FOLDER / "shapes.json").read_text("utf-8"))
    things = {entry["name"]: entry["words"] for entry in json.loads(THINGS_FILE.read_text("utf-8"))}
    more = json.loads((FOLDER / "more_things.json").read_text("utf-8"))
    found: dict[str, list[str]] = {}
    for name, words in {**shapes, **things}.items():
        found[name] = [*words.get(language, []), *more.get(name, {}).get(language, [])]
    owner: dict[str, str] = {}
    # The first word of a thing is its own; others go to who names them first.
    for name, words in found.items():
        for word in words[:1] if name not in shapes else words:
            owner.setdefault(word.lower(), name)
    for name, words in found.items():
        for word in words:
            owner.setdefault(word.lower(), name)
    kept = {
        name: tuple(dict.fromkeys(word for word in words if owner[word.lower()] == name))
        for name, words in found.items()
    }
    return {name: words or tuple(found[name][:1]) for name, words in kept.items()}


@cache
def known_words() -> frozenset[str]:
    """Every single word, in small letters, of every language that means something here."""
    found: set[str] = set()

    def collect(value: Any) -> None:
        if isinstance(value, dict):
            for inner in value.values():
                collect(inner)
        else:
            for phrase in value:
                found.update(phrase.lower().replace("/", " ").replace("_", " ").split())

    for language in LANGUAGES:
        kinds = {
            name: value
            for name, value in lexicon(language).items()
            if name not in ("unrelated", "names", "tails", "fillers", "idle", "pair_idle")
        }
        collect(kinds)
        collect(thing_words(language))
    return frozenset(found)
