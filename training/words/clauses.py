"""Clauses of captions: groups and pairs of objects, with what they do and where they are."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from reelserve.training.words.labels import SOMETHING, CaptionPlan, Group
from reelserve.training.words.phrases import Phrases, is_pair, join_words
from reelserve.training.words.verbs import Verb

_ONES = {
    "en": ("one", "one", "the other"),
    "de": ("einer", "eine", "eins", "der andere"),
    "fr": ("un", "une", "l'autre"),
    "es": ("uno", "una", "otro"),
    "it": ("uno", "una", "l'altro"),
    "pt": ("um", "uma", "outro"),
}
_CONTRACTIONS = {
    "fr": (("de le ", "du "), ("de un", "d'un"), ("à le ", "au ")),
    "it": (("di il ", "del "), ("a il ", "al "), ("di la ", "della "), ("a la ", "alla ")),
    "es": (("de el ", "del "), ("a el ", "al ")),
    "pt": (("de o ", "do "), ("de a ", "da "), ("de um", "dum")),
}


def _contracted(language: str, text: str) -> str:
    for apart, together in _CONTRACTIONS.get(language, ()):
        text = text.replace(apart, together)
    return text


def and_word(writer: Writer) -> str:
    """The plain "and" of the language."""
    words = {"en": "and", "de": "und", "fr": "et", "es": "y", "it": "e", "pt": "e"}
    return words[writer.language]


class Writer:
    """Words one plan.

    Args:
        plan: What to say.
        phrases: Draws the wordings.
    """

    def __init__(self, plan: CaptionPlan, phrases: Phrases) -> None:
        self.plan, self.phrases, self.rng = plan, phrases, phrases.rng
        self.language = phrases.language

    # Units: one group, or two that stand in a relation

    def units(self, mode: str) -> list[str]:
        """Clauses of all groups, `mode` being how they are worded: see `group`."""
        groups, relation = list(self.plan.groups), self.plan.relation
        if relation == "together":
            return [self._together(groups, mode)]
        if relation == "alike":
            return [self._alike(groups[0], groups[1], mode)]
        found = []
        if relation:
            found.append(self._pair(groups[0], groups[1], relation, mode))
            groups = groups[2:]
        return found + [self.group(group, mode) for group in groups]

    def _together(self, groups: Sequence[Group], mode: str) -> str:
        """Words as "a cat and a dog run"."""
        nouns = [self.phrases.noun_phrase(group) for group in groups]
        subject = f" {self.phrases.pick('and')} ".join(nouns)
        shared = replace(groups[0], count=2)
        return self._told(subject, shared, mode)

    def _alike(self, first: Group, second: Group, mode: str) -> str:
        """Words as "two stars, one red and one blue", or "a red star and a blue one"."""
        phrases, rng = self.phrases, self.rng
        ones = _ONES[self.language]
        link = phrases.pick("and") if rng.random() < 0.2 else and_word(self)
        if first.thing == SOMETHING or rng.random() < 0.4 or first.size or second.size:
            subject = f"{phrases.noun_phrase(first)} {link} {self._one(second)}"
            if first.thing == SOMETHING:
                subject = f"{phrases.noun_phrase(first)} {link} {phrases.noun_phrase(second)}"
        else:
            both = phrases.noun_phrase(replace(first, count=2, colour=""))
            one, other = (phrases.pick("colours", group.colour) for group in (first, second))
            mark, one_word = rng.choice((",", ",", ":", "")), rng.choice(ones)
            subject = f"{both}{mark} {one_word} {one} {link} {rng.choice(ones)} {other}"
        return self._told(subject, replace(first, count=2, place=""), mode)

    def _one(self, group: Group) -> str:
        """Words as "a little blue one"."""
        phrases = self.phrases
        colour = phrases.pick("colours", group.colour)
        size = phrases.pick("sizes", group.size) if group.size else ""
        article = {
            "en": ("a", "another", "the"),
            "de": ("ein", "eine", "noch ein"),
            "fr": ("un", "une", "un autre"),
            "es": ("uno", "otro", "una"),
            "it": ("uno", "un altro", "una"),
            "pt": ("um", "outro", "uma"),
        }[self.language]
        if self.language == "de":
            colour += self.rng.choice(("er", "e", "es"))
        return join_words(
            self.rng.choice(article), size, colour, "one" if self.language == "en" else ""
        )

    def group(self, group: Group, mode: str) -> str:
        """A group as `bare`, `finite`, `gerund`, `that` or `infinitive`."""
        case = "accusative" if mode in ("that", "infinitive", "gerund") else "nominative"
        speed_word = ""
        if group.speed and (not group.motion or self.rng.random() < 0.15):
            speed_word = self.phrases.pick("speed_adjectives", group.speed)
            group = replace(group, speed="")
        return self._told(self._subject(group, case, speed_word), group, mode)

    def _subject(self, group: Group, case: str, adjective: str = "") -> str:
        subject = self.phrases.noun_phrase(group, case=case)
        if not adjective:
            return subject
        if self.language in ("en", "de"):
            article, _, rest = subject.partition(" ")
            if self.language == "de":
                adjective += "e" if adjective.endswith("n") else "er"
            return f"{article} {adjective} {rest}" if rest else f"{adjective} {subject}"
        return f"{subject} {adjective}"

    def _told(self, subject: str, group: Group, mode: str) -> str:
        """A subject and what it does, where it is."""
        place = self.phrases.place(group)
        found = self.phrases.verb(group)
        if found is None:
            link = ""
            if mode in ("finite", "that") and self.rng.random() < 0.5 and place:
                link = self.be(group.count)
            return join_words(subject, link, place)
        verb, adverb = found
        plain = not verb.rest and not verb.particle and verb.gerund not in ("being", "not")
        if mode != "finite" and plain and self.rng.random() < 0.3:
            if attributed := self._attributed(subject, verb, adverb):
                return join_words(attributed, place)
        return join_words(self.predicate(subject, verb, adverb, group.count, mode), place)

    def _attributed(self, subject: str, verb: Verb, adverb: str) -> str:
        """Words as "a slowly spinning red star"; empty in languages that have no such order."""
        words = subject.split(" ")
        at = self.rng.choice((1, 1, len(words) - 1)) if len(words) > 1 else 0
        if self.language == "en":
            told = f"{adverb} {verb.gerund}" if " " not in adverb else verb.gerund
        elif self.language == "de":
            ending = "e" if words[0].endswith("e") else self.rng.choice(("er", "es", "en", "e"))
            told = f"{adverb} {verb.infinitive}d{ending}"
        else:
            return ""
        late = adverb if adverb and adverb not in told else ""
        return join_words(*words[:at], told.strip(), *words[at:], late)

    def be(self, count: int) -> str:
        """Words as "is" or "are"."""
        forms = {
            "en": "is are",
            "de": "ist sind",
            "fr": "est sont",
            "es": "está están",
            "it": "è sono",
            "pt": "está estão",
        }[self.language].split()
        return forms[count > 1]

    def predicate(
        self, subject: str, verb: Verb, adverb: str, count: int, mode: str, after: str = ""
    ) -> str:
        """Subject, verb, adverb and object in the order of the language and the mode."""
        rng = self.rng
        finite = "plural" if count > 1 else "singular"
        early = bool(adverb) and rng.random() < 0.35
        late = "" if early else adverb
        front = adverb if early else ""
        if self.language == "de":
            return self._german(subject, verb, adverb, finite, mode, after)
        if mode == "bare":
            mode = "gerund"
        if mode == "finite" and self.language in ("en", "es", "it", "pt") and rng.random() < 0.3:
            return join_words(subject, self.be(count), front, verb.phrase("gerund"), after, late)
        if mode == "finite":
            if self.language == "en":
                return join_words(subject, front, verb.phrase(finite), after, late)
            return join_words(subject, verb.phrase(finite, front), after, late)
        if mode == "that":
            link = self.phrases.pick("that") if self.language == "en" else "que"
            link = "qui" if self.language == "fr" else "che" if self.language == "it" else link
            return join_words(subject, link, front, verb.phrase(finite), after, late)
        if mode == "infinitive":
            return join_words(subject, front, verb.phrase("infinitive"), after, late)
        comma = "," if rng.random() < 0.1 else ""
        return join_words(subject + comma, front, verb.phrase("gerund"), after, late)

    def _german(
        self, subject: str, verb: Verb, adverb: str, finite: str, mode: str, after: str
    ) -> str:
        if mode == "finite":
            form = getattr(verb, finite)
            middle = (adverb, verb.rest) if self.rng.random() < 0.6 else (verb.rest, adverb)
            if after:
                middle = (adverb, f"{verb.rest} {after}".strip())
            return join_words(subject, form, *middle, verb.particle)
        joined = verb.particle + getattr(verb, finite)
        rest = f"{verb.rest} {after}".strip()
        if mode in ("bare", "infinitive"):
            return join_words(subject, adverb, rest, verb.particle + verb.infinitive)
        gender = "p" if finite == "plural" else "m"
        first = subject.split(" ", 1)[0]
        if first.endswith("e") and gender != "p":
            gender = "f"
        link = self.phrases.pick("that", gender)
        return join_words(f"{subject},", link, adverb, rest, joined)

    def _pair(self, first: Group, second: Group, relation: str, mode: str) -> str:
        case = "accusative" if mode in ("that", "infinitive", "gerund") else "nominative"
        subject = self.phrases.noun_phrase(first, case=case)
        if is_pair(relation):
            verb, other_case, tail = self.phrases.pair_verb(relation)
            other = join_words(self._object(second, other_case), tail)
            adverb = self.phrases.pick("speeds", first.speed) if first.speed else ""
            return self.predicate(subject, verb, adverb, first.count, mode, other)
        link = self.phrases.pick("relations", relation)
        other = self._object(second, "dative")
        place = _contracted(self.language, f"{link} {other}")
        if first.motion:
            told = self._told(subject, replace(first, place=""), mode)
            return join_words(told, place)
        be = self.be(first.count) if mode in ("finite", "that") and self.rng.random() < 0.6 else ""
        return join_words(subject, be, place)

    def _object(self, group: Group, case: str) -> str:
        return self.phrases.noun_phrase(group, case=case)

    # Pieces of captions

    def joined(self, units: Sequence[str]) -> str:
        """Units with commas and "and"."""
        if len(units) < 2:
            return "".join(units)
        link = self.phrases.pick("and")
        kind = self.rng.random()
        if kind < 0.12:
            return ". ".join(units)
        if kind < 0.25:
            return ", ".join(units)
        return ", ".join(units[:-1]) + f" {link} " + units[-1]

    def with_scene(self, text: str, where: str = "end") -> str:
        """Adds setting and weather, at the end or in front."""
        scene = " ".join(self.phrases.scene(self.plan))
        if not scene:
            return text
        if where == "front":
            return f"{scene}, {text}" if self.rng.random() < 0.7 else f"{scene} {text}"
        return f"{text}, {scene}" if self.rng.random() < 0.15 else f"{text} {scene}"

    def weather_told(self) -> str:
        """The weather as a sentence of its own, and the plan then goes on without it."""
        told = self.phrases.pick("weather_sentences", self.plan.weather)
        self.plan = replace(self.plan, weather="")
        return told
