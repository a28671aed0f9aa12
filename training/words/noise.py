"""What people's captions have beside their meaning: unknown words, typos, capitals, gaps."""

from __future__ import annotations

import re
import string
from functools import cache
from random import Random

from reelserve.models.sentence_tokenizer import vocabulary
from reelserve.training.words.lexicon import known_words

_ONSETS = "b bl br c ch cl d dr f fl g gl gr h j k kl l m n p pl pr qu r s sh sk sl st t tr v w z"
_RIMES = "a ab ack ado al am an ar arn e eb el em en er et ib ick ido il im in ink o ob ol om on op"
_ENDINGS = "ba bit da do dle fy gle go ka lo mo na nk no pa po r ro ry ta ty x zo zy"
_KEYS = ("qwertyuiop", "asdfghjkl", "zxcvbnm")
_ARTICLES = re.compile(
    r"\b(?:an?|the|eine?|der|die|das|une?|le|la|el|los|una?|il|lo|uma?)\s+", re.IGNORECASE
)


def made_up_word(rng: Random, ending: str = "") -> str:
    """A word that no language has, most likely."""
    onsets, rimes = _ONSETS.split(), _RIMES.split()
    parts = [rng.choice(onsets) + rng.choice(rimes) for _ in range(rng.choice((1, 1, 2)))]
    return "".join(parts) + (ending or rng.choice(_ENDINGS.split()))


@cache
def other_words() -> tuple[str, ...]:
    """Words of the tokenizer's vocabulary that say nothing of what a label can hold."""
    known = known_words()
    words = []
    for piece in vocabulary():
        word = piece.removeprefix("▁")
        usual = piece != word and 4 <= len(word) <= 12 and word.isalpha() and word.islower()
        if usual and ord(max(word)) < 0x180 and not _is_known(word, known):
            words.append(word)
    return tuple(words)


def _is_known(word: str, known: frozenset[str]) -> bool:
    """Whether a word or one much like it means something here."""
    return any(word[: len(word) - cut] in known for cut in (0, 1, 2, 3) if len(word) - cut >= 3)


def unknown_word(rng: Random) -> str:
    """A made-up word, or one of any language that says nothing of what a label can hold."""
    return made_up_word(rng) if rng.random() < 0.5 else rng.choice(other_words())


def misspelt(rng: Random, text: str, typos: int) -> str:
    """The text with some typos, in words of more than three letters."""
    words = text.split(" ")
    for _ in range(typos):
        at = rng.randrange(len(words))
        if len(words[at]) > 3:
            words[at] = _misspelt_word(rng, words[at])
    return " ".join(words)


def _misspelt_word(rng: Random, word: str) -> str:
    at = rng.randrange(1, len(word) - 1)
    kind = rng.randrange(5)
    if kind == 0:
        return word[:at] + word[at + 1] + word[at] + word[at + 2 :]
    if kind == 1:
        return word[:at] + word[at + 1 :]
    if kind == 2:
        return word[:at] + word[at] + word[at:]
    near = next((row for row in _KEYS if word[at].lower() in row), string.ascii_lowercase)
    place = near.find(word[at].lower()) + rng.choice((-1, 1))
    letter = near[place % len(near)]
    return word[:at] + letter + word[at + (kind == 3) :]


def without_articles(rng: Random, text: str, share: float) -> str:
    """The text without a share of its articles."""
    return _ARTICLES.sub(lambda found: "" if rng.random() < share else found[0], text)


def without_accents(text: str) -> str:
    """The text as typed on a keyboard that has no accents."""
    return text.translate(str.maketrans("áàâãäéèêëíìîïóòôõöúùûüçñ", "aaaaaeeeeiiiiooooouuuucn"))


def punctuated(rng: Random, text: str) -> str:
    """The text with marks where no rule puts them, and without those that it had."""
    words = text.translate(str.maketrans("", "", ",.;:!")).split(" ")
    marks = (",", ".", ".", ";", "!", "...", " -", ":")
    share = rng.choice((0.0, 0.1, 0.3))
    return " ".join(word + rng.choice(marks) if rng.random() < share else word for word in words)


def dirty(rng: Random, text: str) -> str:
    """The text as some would type it; most texts stay as they are."""
    if rng.random() < 0.08:
        text = punctuated(rng, text)
    if rng.random() < 0.15:
        text = without_articles(rng, text, 1.0 if rng.random() < 0.6 else 0.5)
    if rng.random() < 0.06:
        text = without_accents(text)
    if rng.random() < 0.15:
        text = misspelt(rng, text, rng.choice((1, 1, 2)))
    kind = rng.random()
    if kind < 0.25:
        text = text[:1].upper() + text[1:]
    elif kind < 0.5:
        text = text.lower()
    elif kind < 0.53:
        text = text.upper()
    end = rng.random()
    return text + ("." if end < 0.2 else "!" if end < 0.24 else "..." if end < 0.26 else "")
