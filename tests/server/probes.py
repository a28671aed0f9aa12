"""Code of a test inside a stage's `model.py`."""

from __future__ import annotations

from pathlib import Path

FUTURE = "from __future__ import annotations\n"


def insert_code(file: Path, code: str) -> None:
    """Puts code before what a module does; nothing may stand before its `__future__` import."""
    source = file.read_text()
    assert source.count(FUTURE) == 1, f"{file} has no place for code"
    file.write_text(source.replace(FUTURE, FUTURE + code))
