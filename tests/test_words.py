"""Docstrings begin with a noun or a verb that says something, so that one reading is enough."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
# Rooms that are clean; to hold every room in the end.
CLEAN = (
    "export",
    "kernels",
    "loadtest",
    "model_repository",
    "models",
    "pipeline",
    "runtimes",
    "server",
    "tools",
    "training",
)
HALF_A_SENTENCE = re.compile(r"(?:Of|That) ")
ENTRY = re.compile(r"\s+\*{0,2}\w+: (?P<text>.*)")
"""One line of `Args:`, `Returns:` or `Raises:`, named."""
DOCUMENTED = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)


def docstrings(source: str) -> Iterator[tuple[int, str]]:
    """Line and text of every docstring, those of attributes and constants included."""
    for node in ast.walk(ast.parse(source)):
        for child in node.body if isinstance(node, DOCUMENTED) else ():
            if isinstance(child, ast.Expr) and isinstance(child.value, ast.Constant):
                text = child.value.value
                if isinstance(text, str):
                    yield child.lineno, text


def half_sentences(source: str) -> list[str]:
    """Beginnings of docstrings, or of their entries, that lean on what stands before them."""
    found = []
    for first, text in docstrings(source):
        for number, line in enumerate(text.splitlines()):
            entry = ENTRY.fullmatch(line)
            beginning = line if number == 0 else entry["text"] if entry else ""
            if HALF_A_SENTENCE.match(beginning):
                found.append(f"line {first + number}: {line.strip()}")
    return found


@pytest.mark.parametrize("room", CLEAN)
def test_no_docstring_begins_with_half_a_sentence(room):
    found = {
        str(file.relative_to(ROOT)): wrong
        for file in sorted((ROOT / room).rglob("*.py"))
        if (wrong := half_sentences(file.read_text(encoding="utf-8")))
    }
    assert found == {}


def test_half_sentences_are_found_wherever_they_stand():
    source = (
        '"""Of the module."""\n'
        "LIMIT = 1\n"
        '"""That a request may have."""\n'
        "def f(path):\n"
        '    """Reads a file.\n\n'
        "    Args:\n"
        "        path: Of the file.\n"
        '    """\n'
        "class Office:\n"
        '    """Offices, and that is all.\n\n    Of no interest.\n    """\n'
    )
    lines = [wrong.partition(":")[0] for wrong in half_sentences(source)]
    assert sorted(lines) == ["line 1", "line 3", "line 8"]
