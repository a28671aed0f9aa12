"""Reads files of a checkpoint that others have written: bounded, and refused by name."""

from __future__ import annotations

import json
from pathlib import Path, PurePosixPath
from typing import Any, NoReturn

MAX_TEXT_BYTES = 2**26
"""Largest JSON file that is read. The largest known, a vocabulary of 256,000 pieces, has 34 MB."""
LFS_POINTER = b"version https://git-lfs.github.com/spec/"
"""What Git LFS leaves in place of a file whose content was not fetched."""

MAX_SAID = 300
"""Characters of a library's own words that a message repeats."""


class CheckpointFileError(ValueError):
    """A file of a checkpoint is not what it must be; the message names it and what to do."""


def require_content(path: Path) -> int:
    """Refuses a file without content of its own.

    Args:
        path: The file.

    Returns:
        Its size in bytes, above 0.

    Raises:
        CheckpointFileError: If it is empty, or a pointer that Git LFS has left.
        FileNotFoundError: If there is no such file.
    """
    with path.open("rb") as file:
        start = file.read(len(LFS_POINTER))
    if not start:
        raise CheckpointFileError(f"{path}: is empty; fetch it again")
    if start == LFS_POINTER:
        raise CheckpointFileError(
            f"{path}: is a pointer of Git LFS and not the file; `git lfs pull` fetches it"
        )
    return path.stat().st_size


def read_text_file(path: Path) -> bytes:
    """Content of a small file.

    Raises:
        CheckpointFileError: If it is empty, a pointer or larger than `MAX_TEXT_BYTES`.
        FileNotFoundError: If there is no such file.
    """
    size_bytes = require_content(path)
    if size_bytes > MAX_TEXT_BYTES:
        raise CheckpointFileError(f"{path}: has {size_bytes} bytes; the limit is {MAX_TEXT_BYTES}")
    return path.read_bytes()


def read_json_object(path: Path) -> dict[str, Any]:
    """Parses a file that holds one JSON object.

    Raises:
        CheckpointFileError: If it holds anything else, NaN and Infinity included.
        FileNotFoundError: If there is no such file.
    """

    def refuse(constant: str) -> NoReturn:
        raise ValueError(f"{constant} is no JSON")

    try:
        content = json.loads(read_text_file(path), parse_constant=refuse)
    except CheckpointFileError:
        raise
    except RecursionError:
        raise CheckpointFileError(f"{path}: not valid JSON: nested too deeply") from None
    # Broken JSON, broken UTF-8, NaN, and integers of thousands of digits.
    except ValueError as error:
        raise CheckpointFileError(f"{path}: not valid JSON: {error}") from None
    if not isinstance(content, dict):
        raise CheckpointFileError(
            f"{path}: must hold a JSON object, holds {type(content).__name__}"
        )
    return content


def named_file(folder: Path, name: object, named_by: str) -> Path:
    """A file that another file of the checkpoint names.

    Args:
        folder: Where it must be.
        name: What was read.
        named_by: File and entry, for the message.

    Raises:
        CheckpointFileError: If the name leads out of the folder, or no such file is there.
    """
    if not isinstance(name, str) or not inside(name):
        raise CheckpointFileError(f"{named_by} is {name!r}; it must name a file in {folder}")
    path = folder / name
    if not path.is_file():
        raise CheckpointFileError(f"{named_by} names {name}, and {path} is missing; fetch it")
    return path


def inside(name: str) -> bool:
    """Whether a relative path with forward slashes stays in its folder."""
    path = PurePosixPath(name)
    return bool(name) and not path.is_absolute() and not {"..", "\\"} & {*path.parts, *name}


def one_line(error: BaseException) -> str:
    """What a library says of a fault, as one line that a message can end with."""
    words = " ".join(str(error).split())
    said = words if len(words) <= MAX_SAID else f"{words[:MAX_SAID]}…"
    return f"{type(error).__name__}: {said}" if said else type(error).__name__
