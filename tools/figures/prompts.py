"""Copies the sentences of the hand-written list for the load test, which is used without it."""

from __future__ import annotations

import json
from pathlib import Path

SOURCE = Path("training", "words", "hand_written.json")
"""Sentences in the manner of people, with what each of them names."""
TARGET = Path("loadtest", "prompts.txt")


def load_test_prompts(root: Path) -> str:
    """Content of `loadtest/prompts.txt`: the sentences of the list, one a line.

    Args:
        root: Folder of the project.

    Raises:
        FileNotFoundError: If the list is missing.
        ValueError: If a sentence is empty, twice there, or has more than a line.
    """
    sentences = [entry["text"] for entry in json.loads((root / SOURCE).read_text("utf-8"))]
    for number, sentence in enumerate(sentences):
        if sentence.strip() != sentence or len(sentence.splitlines()) != 1:
            raise ValueError(f"{SOURCE}: {sentence!r} must be one line, and no space around it")
        if sentence in sentences[:number]:
            raise ValueError(f"{SOURCE}: {sentence!r} is there twice")
    return "".join(f"{sentence}\n" for sentence in sentences)
