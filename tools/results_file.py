"""Writes files of results."""

from __future__ import annotations

import json
from pathlib import Path

from reelserve.pipeline.atomic_file import write_file


def write_json(path: Path, content: object) -> None:
    """Replaces a JSON file at once; its folder is made where it is missing."""
    write_file(path, json.dumps(content, indent=2, ensure_ascii=False) + "\n")
