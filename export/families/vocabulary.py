"""What a checkpoint's text encoder knows by name, as callers are told it."""

from __future__ import annotations

from reelserve.models.text_encoder import TextEncoderConfig

KINDS = {
    "thing": "things",
    "colour": "colours",
    "size": "sizes",
    "motion": "motions",
    "speed": "speeds",
    "place": "places",
    "setting": "settings",
    "weather": "weathers",
}
"""Attributes that callers are told of, and what their values are called. The colour of a plain
background is one of the colours."""
UNNAMED = ("", "something")
"""Values that stand for what a text does not say."""


def vocabulary_of(config: TextEncoderConfig) -> dict[str, tuple[str, ...]]:
    """Names that a text encoder tells apart.

    Args:
        config: Its configuration.

    Returns:
        Names by kind, in the order of `KINDS`; a kind that it does not know is left out.
    """
    values = {**config.object_values, **config.scene_values}
    return {
        kind: tuple(name for name in values[attribute] if name not in UNNAMED)
        for attribute, kind in KINDS.items()
        if attribute in values
    }
