"""The token that prompts are padded with, as export and server agree on it."""

from __future__ import annotations

from collections.abc import Callable

PAD_TOKENS = ("[PAD]", "<pad>")
"""Padding tokens of BERT and of T5."""


def pad_token_of(token_to_id: Callable[[str], int | None]) -> tuple[str, int]:
    """The padding token of a vocabulary and its id.

    Args:
        token_to_id: Gives a token's id; None where the vocabulary has not that token.

    Raises:
        ValueError: If the vocabulary has no padding token.
    """
    for token in PAD_TOKENS:
        found = token_to_id(token)
        if found is not None:
            return token, found
    raise ValueError(f"the vocabulary has none of the tokens {', '.join(PAD_TOKENS)}")
