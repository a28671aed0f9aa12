"""Words a plan's parts in one of six languages: noun phrases, verb phrases, where and when."""

from __future__ import annotations

from dataclasses import dataclass
from random import Random
from typing import Any

from reelserve.training.words.labels import IDLE, PAIR_MOTIONS, SOMETHING, CaptionPlan, Group
from reelserve.training.words.lexicon import lexicon, thing_words
from reelserve.training.words.noise import unknown_word
from reelserve.training.words.verbs import Verb, gender_of, plural_of, read_verb

_GERMAN_ENDINGS = {
    "nominative": {"m": "er", "f": "e", "n": "es", "p": "e"},
    "accusative": {"m": "en", "f": "e", "n": "es", "p": "e"},
    "dative": {"m": "en", "f": "en", "n": "en", "p": "en"},
}
_UNBENDING = ("rosa", "lila", "pink", "orange", "türkis", "mini", "beige", "cyan")
_SAME_FOR_BOTH = (
    "rosa viola violeta cinza lila laranja naranja turquesa púrpura porpora fucsia celeste indigo"
).split()
_ACCUSATIVE = ("über", "um", "jagen", "verfolgen", "umkreisen", "umrunden", "hetzen")


@dataclass(frozen=True)
class Noise:
    """Shares of noun phrases and captions that get words which say nothing.

    Args:
        fillers: Adjectives, adverbs and tails like "cute" and "while eating lunch".
        idle: Verbs of objects whose motion is not said, like "sings".
        unknown: Words that no lexicon has.
        names: "called Bella".
    """

    fillers: float = 0.12
    idle: float = 0.1
    unknown: float = 0.04
    names: float = 0.03


class Phrases:
    """Draws wordings in one language.

    Args:
        language: One of `LANGUAGES`.
        rng: Draws everything.
        noise: Shares of words that say nothing.
    """

    def __init__(self, language: str, rng: Random, noise: Noise) -> None:
        self.language, self.rng, self.noise = language, rng, noise
        self.words: dict[str, Any] = lexicon(language)
        self.things = thing_words(language)

    def pick(self, *path: str) -> str:
        """One alternative of a list in the lexicon."""
        found: Any = self.words
        for name in path:
            found = found[name]
        return str(self.rng.choice(found))

    # Nouns

    def noun(self, group: Group) -> tuple[str, str]:
        """A noun for the group and its gender, `"p"` of several."""
        names = self.things[group.thing]
        name = names[0] if self.rng.random() < 0.45 else self.rng.choice(names)
        gender = gender_of(self.language, name)
        return (name, gender) if group.count == 1 else (plural_of(self.language, name), "p")

    def noun_phrase(self, group: Group, *, case: str = "nominative", article: bool = True) -> str:
        """Words as "two little red foxes"."""
        if group.thing == SOMETHING:
            return self._something(group)
        noun, gender = self.noun(group)
        before, after = self._adjectives(group, gender, case)
        if group.count > 1 and self.language == "en" and self.rng.random() < 0.06:
            number = {2: "two", 3: "three"}[group.count]
            after = [*after, self.rng.choice((f", {number} of them", f"x{group.count}"))]
            return join_words(*before, noun, *after).replace(" ,", ",")
        lead = self._article(group, noun, gender, case, before) if article else self._count(group)
        called = ""
        if self.rng.random() < self.noise.names and group.count == 1:
            called = self.pick("called").replace("%", self.pick("names"))
            if called.endswith((" the", " der")):
                called = ""
        return join_words(lead, *before, noun, *after, called)

    def _something(self, group: Group) -> str:
        noun = self.pick("something")
        _, after = self._adjectives(group, "m", "nominative")
        if self.language in ("en", "de") and after == []:
            after, _ = self._adjectives(group, "m", "nominative")
        count = self._count(group) if group.count > 1 else ""
        if count:
            return join_words(count, *after, plural_of(self.language, noun.split()[-1]))
        return join_words(noun, *after)

    def _count(self, group: Group) -> str:
        return self.pick("counts", str(group.count)).strip("_") if group.count > 1 else ""

    def _article(self, group: Group, noun: str, gender: str, case: str, before: list[str]) -> str:
        if group.count > 1:
            return self._count(group)
        if self.language == "en":
            article = self.pick("counts", "1")
            follows = (before or [noun])[0][:1].lower()
            return "an" if article == "a" and follows in "aeio" else article
        kind = {"accusative": "accusative", "dative": "dative"}.get(case, "articles")
        return self.pick(kind if self.language == "de" else "articles", gender)

    def _adjectives(self, group: Group, gender: str, case: str) -> tuple[list[str], list[str]]:
        """Adjectives before and after the noun."""
        rng = self.rng
        size = self.pick("sizes", group.size) if group.size else ""
        colour = self.pick("colours", group.colour) if group.colour else ""
        other = []
        if rng.random() < self.noise.fillers * 0.6:
            other.append(self.pick("fillers"))
        if rng.random() < self.noise.unknown:
            other.append(unknown_word(rng))
        other = [word for word in other if word.isalpha() and len(word) > 2]
        if self.language == "en":
            found = [size, *other, colour]
            if rng.random() < 0.12:
                rng.shuffle(found)
            return [word for word in found if word], []
        if self.language == "de":
            ending = _GERMAN_ENDINGS[case][gender]
            found = [_bent(word, ending) for word in (size, *other, colour) if word]
            return found, []
        before = [size] if size and rng.random() < 0.5 else []
        rest = [colour, *other] if before or not size else [size, colour, *other]
        if rng.random() < 0.2:
            rng.shuffle(rest)
        feminine = gender == "f"
        after = [_agreeing(self.language, word, feminine, group.count > 1) for word in rest if word]
        return before, after

    # Verbs

    def verb(self, group: Group) -> tuple[Verb, str] | None:
        """The verb of a group's own motion and an adverb of its speed, each where it is said."""
        motion, speed, rng = group.motion, group.speed, self.rng
        if not motion:
            # People also say what cannot be seen in a drawing.
            idle = not speed and rng.random() < self.noise.idle
            return (read_verb(self.language, self.pick("idle")), "") if idle else None
        adverb = self.pick("speeds", speed) if speed else ""
        if motion == "across":
            quick = speed and rng.random() < 0.25
            if quick:
                return read_verb(self.language, self.pick("speed_motions", speed)), ""
            return read_verb(self.language, self.pick("travel")), adverb
        phrase = self.pick("motions", motion)
        if phrase.startswith("@"):
            travel = self.pick("travel")
            if "+" in travel:
                travel = travel.partition("+")[0]
            phrase = travel + phrase[1:]
        return read_verb(self.language, phrase), adverb

    def pair_verb(self, relation: str) -> tuple[Verb, str, str]:
        """Verb of a pair's motion, the case of the second, and what follows that."""
        phrase = self.pick("pair_idle") if relation == IDLE else self.pick("pair_motions", relation)
        verb = read_verb(self.language, phrase)
        if self.language == "de" and "~" in verb.rest:
            first, _, last = verb.rest.partition("~")
            plain = Verb(verb.singular, verb.plural, verb.gerund, verb.infinitive, first.strip())
            return plain, "dative", last.strip()
        words = (*verb.rest.split(), verb.infinitive)
        accusative = any(word in _ACCUSATIVE for word in words) or not verb.rest
        return verb, "accusative" if accusative else "dative", ""

    # Where and when

    def scene(self, plan: CaptionPlan) -> list[str]:
        """Phrases of setting, ground and weather, in any order."""
        found = []
        rng = self.rng
        if plan.ground_colour:
            colour = self.pick("colours", plan.ground_colour)
            found.append(self._ground(self.pick("grounds"), colour))
        elif plan.setting:
            phrase = self.pick("settings", plan.setting)
            if plan.weather and self.language == "en" and rng.random() < 0.15:
                adjective = self.pick("weather_adjectives", plan.weather)
                for article in (" a ", " the "):
                    if article in phrase:
                        head, _, tail = phrase.partition(article)
                        return [f"{head} a {adjective} {tail}"]
            found.append(phrase)
        if plan.weather:
            found.append(self.pick("weathers", plan.weather))
        if rng.random() < 0.3:
            found.reverse()
        return found

    def scene_words(self, plan: CaptionPlan) -> list[str]:
        """Keywords of setting, ground and weather."""
        found = []
        if plan.ground_colour:
            colour = self.pick("colours", plan.ground_colour)
            found.append(self._ground(self.pick("ground_nouns"), colour))
        elif plan.setting:
            found.append(self.pick("setting_nouns", plan.setting))
        if plan.weather and found and self.rng.random() < 0.15:
            adjective = self.pick("weather_adjectives", plan.weather)
            after = self.language in ("fr", "es", "it", "pt")
            return [f"{found[0]} {adjective}" if after else f"{adjective} {found[0]}"]
        if plan.weather:
            found.append(self.pick("weather_nouns", plan.weather))
        return found

    def _ground(self, phrase: str, colour: str) -> str:
        if self.language == "de" and colour.endswith(_UNBENDING):
            for ending in ("%em", "%en", "%er"):
                phrase = phrase.replace(ending, "%")
        return phrase.replace("%", colour)

    def place(self, group: Group) -> str:
        """Where a group is, if that is said."""
        return self.pick("places", group.place) if group.place else ""


def is_pair(relation: str) -> bool:
    """Whether the first group does something to the second."""
    return relation in (*PAIR_MOTIONS, IDLE)


def _bent(word: str, ending: str) -> str:
    """A German adjective with its ending, unless it has none."""
    if word.endswith(_UNBENDING) or " " in word:
        return word
    if word.endswith("er") and len(word) > 5:
        return word
    return word + (ending.removeprefix("e") if word.endswith("e") else ending)


def _agreeing(language: str, word: str, feminine: bool, several: bool) -> str:
    """A Romance adjective that agrees with its noun, where it changes by its last letter."""
    if " " in word:
        return word
    if feminine and word.endswith("o"):
        word = word[:-1] + "a"
    elif not feminine and word.endswith("a") and language != "fr" and word not in _SAME_FOR_BOTH:
        word = word[:-1] + "o"
    return plural_of(language, word) if several else word


def join_words(*parts: str) -> str:
    """The parts that are not empty, with spaces between."""
    return " ".join(part for part in parts if part)
