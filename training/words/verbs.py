"""Forms of verbs and nouns in six languages, as well as rules can make them.

A verb phrase of a lexicon begins with the verb, followed by what goes with it. English verbs and
regular Romance ones are written as infinitives; others as `singular/plural/gerund`, with `_` for
spaces. German verbs are `singular/plural`, with `+` before a particle that stands at the end.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

_DOUBLED = (
    "hop sit run swim spin jog skip trot drop stop throb bob hug zip wag get put chug zig zag dip "
    "grab flip nap"
).split()
_PLURALS = {
    "mouse": "mice",
    "wolf": "wolves",
    "fish": "fish",
    "sheep": "sheep",
    "goose": "geese",
    "man": "men",
    "woman": "women",
    "child": "children",
    "foot": "feet",
    "tooth": "teeth",
    "leaf": "leaves",
    "knife": "knives",
    "deer": "deer",
    "person": "people",
    "scarf": "scarves",
    "calf": "calves",
    "elf": "elves",
    "ox": "oxen",
    "aircraft": "aircraft",
    "die": "dice",
    "thief": "thieves",
    "policeman": "policemen",
    "fireman": "firemen",
    "snowman": "snowmen",
    "half": "halves",
    "shrimp": "shrimp",
    "jeans": "jeans",
    "glasses": "glasses",
    "scissors": "scissors",
    "sunglasses": "sunglasses",
    "headphones": "headphones",
    "spaghetti": "spaghetti",
    "fireworks": "fireworks",
}


@dataclass(frozen=True)
class Verb:
    """Forms of a verb phrase.

    Args:
        singular: "runs"; plural: "run"; gerund: "running"; infinitive: "run".
        rest: What follows the verb, particles of German verbs excepted.
        particle: German: "ab" of "hebt ab".
    """

    singular: str
    plural: str
    gerund: str
    infinitive: str
    rest: str = ""
    particle: str = ""

    def phrase(self, form: str, middle: str = "") -> str:
        """The verb in a form, `middle` after it, the rest and the particle."""
        parts = (getattr(self, form), middle, self.rest, self.particle)
        return " ".join(part for part in parts if part)


@cache
def read_verb(language: str, phrase: str) -> Verb:
    """Reads a verb phrase of a lexicon."""
    head, _, rest = phrase.partition(" ")
    if language == "en":
        return _english(head, rest)
    if language == "de":
        return _german(phrase)
    if "/" in head:
        forms = [form.replace("_", " ") for form in head.split("/")]
        return Verb(forms[0], forms[1], forms[2], forms[3] if len(forms) > 3 else forms[0], rest)
    return _romance(language, head, rest)


def _english(head: str, rest: str) -> Verb:
    if head == "be":
        return Verb("is", "are", "being", "be", rest)
    if head == "have":
        return Verb("has", "have", "having", "have", rest)
    if head == "do" and rest.startswith("not "):
        inner = rest.removeprefix("not ")
        return Verb("does not", "do not", "not", "not", inner)
    if head.endswith(("s", "sh", "ch", "x", "z", "o")):
        singular = head + "es"
    elif head.endswith("y") and head[-2] not in "aeiou":
        singular = head[:-1] + "ies"
    else:
        singular = head + "s"
    if head == "lie":
        gerund = "lying"
    elif head in _DOUBLED:
        gerund = head + head[-1] + "ing"
    elif head.endswith("e") and not head.endswith(("ee", "ye", "oe")):
        gerund = head[:-1] + "ing"
    else:
        gerund = head + "ing"
    return Verb(singular, head, gerund, head, rest)


def _german(phrase: str) -> Verb:
    words = phrase.split()
    particle = ""
    for at, word in enumerate(words):
        if "+" in word:
            words[at], _, particle = word.partition("+")
    singular, _, plural = words[0].partition("/")
    infinitive = "sein" if plural == "sind" else plural
    return Verb(singular, plural, infinitive, infinitive, " ".join(words[1:]), particle)


_ENDINGS = {
    ("fr", "er"): ("e", "ent", "ant"),
    ("es", "ar"): ("a", "an", "ando"),
    ("es", "er"): ("e", "en", "iendo"),
    ("es", "ir"): ("e", "en", "iendo"),
    ("it", "are"): ("a", "ano", "ando"),
    ("it", "ere"): ("e", "ono", "endo"),
    ("it", "ire"): ("e", "ono", "endo"),
    ("pt", "ar"): ("a", "am", "ando"),
    ("pt", "er"): ("e", "em", "endo"),
    ("pt", "ir"): ("e", "em", "indo"),
}


def _romance(language: str, head: str, rest: str) -> Verb:
    for (of, ending), endings in _ENDINGS.items():
        if of == language and head.endswith(ending):
            stem = head.removesuffix(ending)
            return Verb(stem + endings[0], stem + endings[1], stem + endings[2], head, rest)
    return Verb(head, head, head, head, rest)


@cache
def plural_of(language: str, noun: str) -> str:
    """The plural of a noun; of several words, the one that bears the number is changed."""
    words = noun.split()
    # Romance languages have the noun first, English and German last.
    at = len(words) - 1 if language in ("en", "de") or len(words) == 1 else 0
    if language == "en" and " of " in noun:
        at = words.index("of") - 1
    words[at] = _plural_word(language, words[at])
    return " ".join(words)


def _plural_word(language: str, word: str) -> str:
    if language == "en":
        return _english_plural(word)
    last = word[-1:].lower()
    if language == "de":
        return _german_plural(word)
    if language == "fr":
        if last in "sxz":
            return word
        return word[:-2] + "aux" if word.endswith("al") else word + ("x" if last == "u" else "s")
    if language == "it":
        return word[:-1] + {"o": "i", "a": "e", "e": "i"}[last] if last in "oae" else word
    if language == "es" and last == "z":
        return word[:-1] + "ces"
    if language == "pt" and word.endswith("ão"):
        return word[:-2] + "ões"
    if language == "pt" and last in "lm":
        return word[:-1] + ("is" if last == "l" else "ns")
    return word + ("s" if last in "aeiouáéíóúãõâêô" else "" if last == "s" else "es")


def _german_plural(word: str) -> str:
    if word.endswith("e"):
        return word + "n"
    if word.endswith(("er", "el", "en", "chen", "lein")):
        return word
    if word.endswith(("ung", "heit", "in")):
        return word + ("nen" if word.endswith("in") else "en")
    return word + ("s" if word[-1] in "aiouy" else "e")


def _english_plural(word: str) -> str:
    if word in _PLURALS:
        return _PLURALS[word]
    for ending, plural in _PLURALS.items():
        if len(ending) > 4 and word.endswith(ending):
            return word.removesuffix(ending) + plural
    if word.endswith("man") and word not in ("human", "talisman"):
        return word[:-3] + "men"
    if word.endswith(("s", "sh", "ch", "x", "z")):
        return word + "es"
    if word.endswith("y") and word[-2:-1] not in "aeiou":
        return word[:-1] + "ies"
    if word.endswith(("ato", "ero")):
        return word + "es"
    return word + "s"


_NEUTER = (
    "pferd auto haus schiff boot flugzeug rad schaf schwein kaninchen kamel zebra krokodil herz "
    "kreuz quadrat dreieck viereck rechteck ei brot buch feuer bett telefon radio klavier zelt "
    "schloss horn huhn küken mädchen baby känguru lama ufo taxi blatt gesicht auge ohr geschenk "
    "schwert messer bier eis sandwich handy kleid hörnchen zeichen gespenst meer krankenhaus "
    "licht schild teleskop mikrofon saxofon saxophon cello kind monster chen lein"
).split()
_FEMININE = (
    "kuh maus gans nuss burg hand uhr kamera tür axt ampel gabel wurst frau fee ananas zwiebel "
    "kartoffel insel trommel muschel schaufel kraft bombe krabbe in ung heit eule"
).split()
_ENDS_IN_E_MASCULINE = "affe löwe hase rabe bulle junge drache käse riese clowne".split()


@cache
def gender_of(language: str, noun: str) -> str:
    """`"m"`, `"f"` or `"n"`, guessed from how the noun ends."""
    word = (noun.split()[-1] if language == "de" else noun.split()[0]).lower()
    if language == "de":
        if word.endswith(tuple(_NEUTER)):
            return "n"
        feminine = word.endswith(tuple(_FEMININE)) or word.endswith("e")
        return "f" if feminine and word not in _ENDS_IN_E_MASCULINE else "m"
    if language == "fr":
        feminine = word.endswith(("ée", "ette", "elle", "ille", "ine", "tion", "sse", "che", "ure"))
        endings = ("age", "isme", "ège", "phone", "aire", "oire", "clone", "ble")
        return "f" if feminine or (word.endswith("e") and not word.endswith(endings)) else "m"
    return "f" if word.endswith(("a", "ión", "dad", "ção", "gem", "ade")) else "m"
