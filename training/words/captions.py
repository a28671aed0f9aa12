"""Words plans as captions, in the styles that people write in.

The encoder is trained on `TRAINED_STYLES`; `HELD_OUT_STYLES` are for measuring alone.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from random import Random

from reelserve.training.scene.labels import Labels
from reelserve.training.words.labels import (
    RELATION_PLACES,
    SOMETHING,
    CaptionPlan,
    Group,
    draw_plan,
    label_plans,
)
from reelserve.training.words.lexicon import LANGUAGES
from reelserve.training.words.noise import dirty, made_up_word, other_words
from reelserve.training.words.phrases import Noise, Phrases, is_pair
from reelserve.training.words.verbs import Verb

LANGUAGE_WEIGHTS = (60, 8, 8, 8, 8, 8)


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
        """Clauses of all groups, `mode` being how they are worded: see `_group`."""
        groups, relation = list(self.plan.groups), self.plan.relation
        if relation == "together":
            return [self._together(groups, mode)]
        if relation == "alike":
            return [self._alike(groups[0], groups[1], mode)]
        found = []
        if relation:
            found.append(self._pair(groups[0], groups[1], relation, mode))
            groups = groups[2:]
        return found + [self._group(group, mode) for group in groups]

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
        link = phrases.pick("and") if rng.random() < 0.2 else _and_word(self)
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
        return _join(self.rng.choice(article), size, colour, "one" if self.language == "en" else "")

    def _group(self, group: Group, mode: str) -> str:
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
                link = self._be(group.count)
            return _join(subject, link, place)
        verb, adverb = found
        plain = not verb.rest and not verb.particle and verb.gerund not in ("being", "not")
        if mode != "finite" and plain and self.rng.random() < 0.3:
            if attributed := self._attributed(subject, verb, adverb):
                return _join(attributed, place)
        return _join(self._predicate(subject, verb, adverb, group.count, mode), place)

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
        return _join(*words[:at], told.strip(), *words[at:], late)

    def _be(self, count: int) -> str:
        forms = {
            "en": "is are",
            "de": "ist sind",
            "fr": "est sont",
            "es": "está están",
            "it": "è sono",
            "pt": "está estão",
        }[self.language].split()
        return forms[count > 1]

    def _predicate(
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
            return _join(subject, self._be(count), front, verb.phrase("gerund"), after, late)
        if mode == "finite":
            if self.language == "en":
                return _join(subject, front, verb.phrase(finite), after, late)
            return _join(subject, verb.phrase(finite, front), after, late)
        if mode == "that":
            link = self.phrases.pick("that") if self.language == "en" else "que"
            link = "qui" if self.language == "fr" else "che" if self.language == "it" else link
            return _join(subject, link, front, verb.phrase(finite), after, late)
        if mode == "infinitive":
            return _join(subject, front, verb.phrase("infinitive"), after, late)
        comma = "," if rng.random() < 0.1 else ""
        return _join(subject + comma, front, verb.phrase("gerund"), after, late)

    def _german(
        self, subject: str, verb: Verb, adverb: str, finite: str, mode: str, after: str
    ) -> str:
        if mode == "finite":
            form = getattr(verb, finite)
            middle = (adverb, verb.rest) if self.rng.random() < 0.6 else (verb.rest, adverb)
            if after:
                middle = (adverb, f"{verb.rest} {after}".strip())
            return _join(subject, form, *middle, verb.particle)
        joined = verb.particle + getattr(verb, finite)
        rest = f"{verb.rest} {after}".strip()
        if mode in ("bare", "infinitive"):
            return _join(subject, adverb, rest, verb.particle + verb.infinitive)
        gender = "p" if finite == "plural" else "m"
        first = subject.split(" ", 1)[0]
        if first.endswith("e") and gender != "p":
            gender = "f"
        link = self.phrases.pick("that", gender)
        return _join(f"{subject},", link, adverb, rest, joined)

    def _pair(self, first: Group, second: Group, relation: str, mode: str) -> str:
        case = "accusative" if mode in ("that", "infinitive", "gerund") else "nominative"
        subject = self.phrases.noun_phrase(first, case=case)
        if is_pair(relation):
            verb, other_case, tail = self.phrases.pair_verb(relation)
            other = _join(self._object(second, other_case), tail)
            adverb = self.phrases.pick("speeds", first.speed) if first.speed else ""
            return self._predicate(subject, verb, adverb, first.count, mode, other)
        link = self.phrases.pick("relations", relation)
        other = self._object(second, "dative")
        place = _contracted(self.language, f"{link} {other}")
        if first.motion:
            told = self._told(subject, replace(first, place=""), mode)
            return _join(told, place)
        be = self._be(first.count) if mode in ("finite", "that") and self.rng.random() < 0.6 else ""
        return _join(subject, be, place)

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


def _join(*parts: str) -> str:
    return " ".join(part for part in parts if part)


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


def sentence(writer: Writer) -> str:
    """Words as "A red fox runs through the forest at night"."""
    text = writer.with_scene(writer.joined(writer.units("finite")))
    if writer.plan.weather and writer.rng.random() < 0.12:
        told = writer.weather_told()
        text = writer.with_scene(writer.joined(writer.units("finite")))
        text = (
            f"{told}. {text}" if writer.rng.random() < 0.5 else f"{text} {_and_word(writer)} {told}"
        )
    return text


def _and_word(writer: Writer) -> str:
    words = {"en": "and", "de": "und", "fr": "et", "es": "y", "it": "e", "pt": "e"}
    return words[writer.language]


def participle(writer: Writer) -> str:
    """Words as "A red fox running through the forest at night"."""
    mode = "gerund" if writer.rng.random() < 0.75 else "that"
    return writer.with_scene(writer.joined(writer.units(mode)))


def video_of(writer: Writer) -> str:
    """Words as "A video of a red fox running"."""
    mode = writer.rng.choice(("gerund", "gerund", "bare", "that"))
    opening = writer.phrases.pick("opening", "video")
    text = writer.with_scene(writer.joined(writer.units(mode)))
    if opening.endswith("'"):
        return opening + text
    return f"{opening} {text}"


def imperative(writer: Writer) -> str:
    """Words as "Show me a red fox running"."""
    mode = writer.rng.choice(("gerund", "that", "infinitive", "gerund", "infinitive"))
    text = writer.with_scene(writer.joined(writer.units(mode)))
    if mode == "infinitive" and writer.rng.random() < 0.4:
        opening = {
            "en": ("let", "make", "have"),
            "de": ("lass", "lasse"),
            "fr": ("fais voir", "laisse"),
            "es": ("haz", "deja a"),
            "it": ("fai", "lascia"),
            "pt": ("faça", "deixe"),
        }[writer.language]
        return f"{writer.rng.choice(opening)} {text}"
    return f"{writer.phrases.pick('opening', 'imperative')} {text}"


def keywords(writer: Writer) -> str:
    """Words as "fox, red, running, forest, night"."""
    rng, phrases = writer.rng, writer.phrases
    parts = []
    for group in writer.plan.groups:
        apart = len(writer.plan.groups) == 1 and rng.random() < 0.3
        plain = replace(group, colour="", size="") if apart else group
        own = [phrases.noun_phrase(plain, article=rng.random() < 0.2)]
        if apart and group.colour:
            own.append(phrases.pick("colours", group.colour))
        if apart and group.size:
            own.append(phrases.pick("sizes", group.size))
        if group.motion and not writer.plan.relation:
            own.extend(_key_verb(writer, group))
        elif group.speed and not writer.plan.relation:
            own.append(phrases.pick("speed_adjectives", group.speed))
        if group.place and writer.plan.relation not in RELATION_PLACES:
            own.append(phrases.place(group))
        parts.append(own)
    if writer.plan.relation:
        # Relations need their words between the two.
        units = writer.units("bare")
        items = [*units, *phrases.scene_words(writer.plan)]
    else:
        scene = phrases.scene_words(writer.plan)
        items = [item for own in parts for item in own]
        items = scene + items if rng.random() < 0.25 else items + scene
    separator = rng.choice((", ", ", ", ", ", " ", " ", "; ", " - ", " / ", "\n", " + "))
    return separator.join(item for item in items if item)


def _key_verb(writer: Writer, group: Group) -> list[str]:
    found = writer.phrases.verb(group)
    assert found is not None
    verb, adverb = found
    form = writer.rng.choice(("gerund", "gerund", "infinitive", "singular"))
    if writer.language == "de":
        told = _join(verb.rest, verb.particle + verb.infinitive)
    else:
        told = verb.phrase(form)
    apart = adverb and writer.rng.random() < 0.5
    return [told, adverb] if apart else [_join(told, adverb)]


def scene_first(writer: Writer) -> str:
    """Words as "At night in the forest, a red fox runs"."""
    rng, phrases = writer.rng, writer.phrases
    kind = rng.random()
    if kind < 0.2:
        words = phrases.scene_words(writer.plan)
        text = writer.joined(writer.units(rng.choice(("gerund", "finite", "bare"))))
        opening = phrases.pick("background_opening") + " " if rng.random() < 0.4 else ""
        return (
            f"{opening}{' '.join(words)}{rng.choice((', ', ': ', '. '))}{text}" if words else text
        )
    if writer.plan.weather and kind < 0.35:
        return (
            f"{writer.weather_told()}. {writer.with_scene(writer.joined(writer.units('finite')))}"
        )
    if kind < 0.65:
        opening = phrases.pick("opening", "there")
        units = writer.joined(writer.units(rng.choice(("gerund", "that", "bare"))))
        return writer.with_scene(f"{opening} {units}", "front")
    return writer.with_scene(writer.joined(writer.units("finite")), "front")


def there_is(writer: Writer) -> str:
    """Words as "There is a red fox that runs through the forest"."""
    mode = writer.rng.choice(("gerund", "that", "bare"))
    opening = writer.phrases.pick("opening", "there")
    return writer.with_scene(f"{opening} {writer.joined(writer.units(mode))}")


_IT = {"en": ("it", "he", "she"), "de": ("er", "sie", "es"), "fr": ("il", "elle")}
_THEY = {"en": "they", "de": "sie", "fr": "ils"}
_IS = {"en": "is", "de": "ist", "fr": "est", "es": "es", "it": "è", "pt": "é"}


def told_later(writer: Writer) -> str:
    """Words as "A fox in the forest. It is red and it runs"."""
    rng, phrases, plan = writer.rng, writer.phrases, writer.plan
    if len(plan.groups) > 1:
        return sentence(writer)
    group = plan.groups[0]
    later = [name for name in ("colour", "size", "motion") if rng.random() < 0.7]
    first = replace(
        group,
        colour="" if "colour" in later else group.colour,
        size="" if "size" in later else group.size,
        motion="" if "motion" in later else group.motion,
        speed="" if "motion" in later or not group.motion else group.speed,
    )
    opening = phrases.pick("opening", "there") if rng.random() < 0.4 else ""
    text = _join(opening, writer._group(first, "bare"))
    early = rng.random() < 0.6
    text = writer.with_scene(text) if early else text
    several = group.count > 1
    one, they = rng.choice(_IT.get(writer.language, ("",))), _THEY.get(writer.language, "")
    subject = they if several else one
    told = []
    for name, kind in (("size", "sizes"), ("colour", "colours")):
        if name in later and getattr(group, name):
            be = writer._be(2) if several else _IS[writer.language]
            told.append(_join(subject, be, phrases.pick(kind, getattr(group, name))))
    if "motion" in later and (found := phrases.verb(replace(group, place=""))):
        told.append(writer._predicate(subject, *found, group.count, "finite"))
    link = rng.choice((". ", ", ", f" {_and_word(writer)} "))
    text = link.join((text, *told))
    return text if early else writer.with_scene(text)


def question(writer: Writer) -> str:
    """Words as "Can you draw a red fox running through the forest?"."""
    text = writer.with_scene(writer.joined(writer.units("gerund")))
    return writer.phrases.pick("questions").replace("%", text)


def headline(writer: Writer) -> str:
    """Words as "RED FOX RUNS THROUGH FOREST AT NIGHT"."""
    text = writer.with_scene(writer.joined(writer.units("finite")))
    words = text.split(" ")
    text = " ".join(word for word in words if word.lower() not in ("a", "an", "the", "is", "are"))
    return text.upper() if writer.rng.random() < 0.5 else text.title()


def telegram(writer: Writer) -> str:
    """Words as "Fox. Red. Forest. Runs fast."."""
    rng, phrases = writer.rng, writer.phrases
    items: list[str] = []
    if writer.plan.relation:
        items += writer.units("finite")
    else:
        for group in writer.plan.groups:
            single = len(writer.plan.groups) == 1
            plain = replace(group, colour="", size="") if single else group
            items.append(phrases.noun_phrase(plain, article=False))
            if single and group.size:
                items.append(phrases.pick("sizes", group.size))
            if single and group.colour:
                items.append(phrases.pick("colours", group.colour))
            found = phrases.verb(group)
            if found:
                items.append(_join(found[0].phrase("singular"), found[1]))
            elif group.speed:
                items.append(phrases.pick("speed_adjectives", group.speed))
            items.append(phrases.place(group))
    scene = phrases.scene_words(writer.plan)
    items = scene + items if rng.random() < 0.3 else items + scene
    text = ". ".join(item[:1].upper() + item[1:] for item in items if item) + "."
    return f"{text} Stop." if rng.random() < 0.2 else text


Style = Callable[[Writer], str]
TRAINED_STYLES: tuple[Style, ...] = (
    sentence,
    sentence,
    participle,
    participle,
    video_of,
    imperative,
    keywords,
    scene_first,
    there_is,
    told_later,
)
HELD_OUT_STYLES: tuple[Style, ...] = (question, headline, telegram)


@dataclass(frozen=True)
class CaptionSettings:
    """What kind of captions to draw.

    Args:
        styles: Drawn evenly.
        languages: Weights of `LANGUAGES`.
        noise: Words that say nothing.
        dirt: Share of captions that `dirty` may change.
        unknown_word: Every caption has one word that nobody knows.
    """

    styles: tuple[Style, ...] = TRAINED_STYLES
    languages: tuple[float, ...] = LANGUAGE_WEIGHTS
    noise: Noise = field(default_factory=Noise)
    dirt: float = 1.0
    unknown_word: bool = False


TRAINING = CaptionSettings()
MEASURED = {
    "held_out": CaptionSettings(languages=(1, 0, 0, 0, 0, 0), noise=Noise(0, 0, 0, 0), dirt=0.0),
    "held_out_styles": CaptionSettings(
        HELD_OUT_STYLES, (1, 0, 0, 0, 0, 0), Noise(0.05, 0, 0, 0), dirt=0.0
    ),
    "languages": CaptionSettings(
        languages=(0, 1, 1, 1, 1, 1), noise=Noise(0.05, 0, 0, 0), dirt=0.0
    ),
    "unknown_word": CaptionSettings(
        languages=(1, 0, 0, 0, 0, 0), noise=Noise(0, 0, 0, 0), dirt=0.0, unknown_word=True
    ),
}
"""Settings of the sets that are measured."""


def write_caption(rng: Random, plan: CaptionPlan, settings: CaptionSettings = TRAINING) -> str:
    """Words a plan."""
    language = rng.choices(LANGUAGES, settings.languages)[0]
    phrases = Phrases(language, rng, settings.noise)
    if plan.unrelated:
        text = _unrelated(phrases)
    elif not plan.groups:
        text = _empty_scene(phrases, plan)
    else:
        text = rng.choice(settings.styles)(Writer(plan, phrases))
        text = _with_fillers(phrases, text)
    if settings.unknown_word:
        text = _with_unknown_word(rng, text)
    return dirty(rng, text) if rng.random() < settings.dirt else text


def _empty_scene(phrases: Phrases, plan: CaptionPlan) -> str:
    """Words as "A quiet meadow at night"."""
    rng = phrases.rng
    words = phrases.scene_words(plan)
    if not words:
        return _unrelated(phrases)
    if rng.random() < 0.3:
        return ", ".join(words)
    if rng.random() < 0.2:
        return " ".join(phrases.scene(plan))
    later = phrases.scene(replace(plan, setting="", ground_colour="")) if len(words) > 1 else []
    text = phrases.pick("empty").replace("%", words[0])
    return " ".join((text, *later))


def _unrelated(phrases: Phrases) -> str:
    rng = phrases.rng
    kind = rng.random()
    if kind < 0.55:
        return phrases.pick("unrelated")
    if kind < 0.65:
        return " ".join(made_up_word(rng) for _ in range(rng.randint(1, 4)))
    return " ".join(rng.choice(other_words()) for _ in range(rng.randint(3, 9)))


def _with_fillers(phrases: Phrases, text: str) -> str:
    """Adds what says nothing, at the end or the beginning."""
    rng, share = phrases.rng, phrases.noise.fillers
    if rng.random() < share * 0.7:
        text = f"{text} {phrases.pick('tails')}"
    if rng.random() < share * 0.7:
        word = phrases.pick("fillers")
        text = f"{text}, {word}" if rng.random() < 0.75 else f"{word} {text}"
    if rng.random() < phrases.noise.unknown:
        text = _with_unknown_word(rng, text)
    return text


def _with_unknown_word(rng: Random, text: str) -> str:
    """The text with one made-up word, an adverb or an adjective by its place."""
    words = text.split(" ")
    at = rng.randint(0, len(words))
    return " ".join((*words[:at], made_up_word(rng, rng.choice(("", "", "ly", "y"))), *words[at:]))


def draw_captioned(
    rng: Random, count: int, settings: CaptionSettings = TRAINING
) -> tuple[list[str], Labels]:
    """Captions and what they say.

    A word that nobody knows may also stand for a thing; it is then a `SOMETHING`.
    """
    plans, texts = [], []
    for _ in range(count):
        plan = draw_plan(rng)
        if settings is not TRAINING:
            while plan.unrelated or not plan.groups or _says_something(plan):
                plan = draw_plan(rng)
        plans.append(plan)
        texts.append(write_caption(rng, plan, settings))
    return texts, label_plans(plans)


def _says_something(plan: CaptionPlan) -> bool:
    return any(group.thing == SOMETHING for group in plan.groups)
