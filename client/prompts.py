"""Reads sentences from files and from standard input."""

from __future__ import annotations

import sys
from pathlib import Path

STANDARD_INPUT = "-"


def read_prompt() -> str:
    """The whole of standard input as one sentence.

    Raises:
        ValueError: If it holds none, or is not UTF-8.
        OSError: If it cannot be read.
    """
    text = _decoded("standard input", _standard_input()).strip()
    if not text:
        raise ValueError("standard input holds no sentence")
    return text


def prompts_in(file: str) -> list[str]:
    """Sentences of a file, one a line; empty lines are left out.

    Args:
        file: Path, or `-` for standard input.

    Raises:
        ValueError: If it holds none, or is not UTF-8.
        OSError: If it cannot be read.
    """
    name = "standard input" if file == STANDARD_INPUT else file
    raw = _standard_input() if file == STANDARD_INPUT else _content(file)
    prompts = [line.strip() for line in _decoded(name, raw).splitlines()]
    prompts = [prompt for prompt in prompts if prompt]
    if not prompts:
        raise ValueError(f"{name} holds no sentence; it must hold one a line")
    return prompts


def has_standard_input() -> bool:
    """Whether something else than a person at a terminal is connected to standard input."""
    return sys.stdin is not None and not sys.stdin.isatty()


def _standard_input() -> bytes:
    if sys.stdin is None:
        raise ValueError("standard input is closed; it must hold a sentence")
    return sys.stdin.buffer.read()


def _content(file: str) -> bytes:
    try:
        return Path(file).read_bytes()
    except OSError as error:
        raise OSError(f"--prompts {file} cannot be read: {error.strerror}") from None


def _decoded(name: str, raw: bytes) -> str:
    try:
        # Editors of Windows begin a file with a mark of its encoding.
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        raise ValueError(
            f"{name} holds the byte 0x{raw[error.start]:02x} in line {line}; it must be UTF-8"
        ) from None
