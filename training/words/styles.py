"""The styles that captions are written in: plain sentences, keywords, questions and others."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from reelserve.training.words.clauses import Writer, and_word
from reelserve.training.words.labels import RELATION_PLACES, Group
from reelserve.training.words.phrases import join_words


def sentence(writer: Writer) -> str:
    """Words as "A red fox runs through the forest at night"."""
    text = writer.with_scene(writer.joined(writer.units("finite")))
    if writer.plan.weather and writer.rng.random() < 0.12:
        told = writer.weather_told()
        text = writer.with_scene(writer.joined(writer.units("finite")))
        text = (
            f"{told}. {text}" if writer.rng.random() < 0.5 else f"{text} {and_word(writer)} {told}"
        )
    return text


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
        told = join_words(verb.rest, verb.particle + verb.infinitive)
    else:
        told = verb.phrase(form)
    apart = adverb and writer.rng.random() < 0.5
    return [told, adverb] if apart else [join_words(told, adverb)]


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
    if kind < 0.3 and (words := phrases.scene_words(writer.plan)):
        # "a foggy forest with an owl".
        units = writer.joined(writer.units(rng.choice(("gerund", "that", "bare"))))
        link = {"en": "with", "de": "mit", "fr": "avec", "es": "con", "it": "con", "pt": "com"}
        if rng.random() < 0.4 and len(words) == 2:
            later = phrases.scene(replace(writer.plan, setting="", ground_colour=""))
            words = [words[0], *later]
        article = rng.choice(("a ", "the ", "")) if writer.language == "en" else ""
        return f"{article}{' '.join(words)} {link[writer.language]} {units}"
    if writer.plan.weather and kind < 0.4:
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
    text = join_words(opening, writer.group(first, "bare"))
    early = rng.random() < 0.6
    text = writer.with_scene(text) if early else text
    several = group.count > 1
    one, they = rng.choice(_IT.get(writer.language, ("",))), _THEY.get(writer.language, "")
    subject = they if several else one
    told = []
    for name, kind in (("size", "sizes"), ("colour", "colours")):
        if name in later and getattr(group, name):
            be = writer.be(2) if several else _IS[writer.language]
            told.append(join_words(subject, be, phrases.pick(kind, getattr(group, name))))
    if "motion" in later and (found := phrases.verb(replace(group, place=""))):
        told.append(writer.predicate(subject, *found, group.count, "finite"))
    link = rng.choice((". ", ", ", f" {and_word(writer)} "))
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
                items.append(join_words(found[0].phrase("singular"), found[1]))
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
