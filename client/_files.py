"""Where clips are written: files are replaced whole, anything else is written through."""

from __future__ import annotations

import os
import re
import stat
from pathlib import Path

from reelserve.pipeline.atomic_file import write_file

MAX_LINKS = 40
"""Symbolic links that Linux follows in one path."""
ALL_MAY_WRITE = stat.S_IWUSR | stat.S_IWGRP | stat.S_IWOTH


def write_output(path: Path, content: bytes) -> None:
    """Writes a file; its folder is created where missing.

    A regular file, the target of a symbolic link too, is replaced whole and keeps its mode. A
    pipe, a device or a descriptor such as `/dev/stdout` is written to.

    Raises:
        OSError: If it cannot be written.
    """
    descriptor = own_descriptor(path)
    if descriptor is not None:
        write_descriptor(descriptor, content)
    elif is_special(path):
        with path.open("wb") as file:
            file.write(content)
    else:
        target = Path(os.path.realpath(path))
        _check_writable(path, target)
        target.parent.mkdir(parents=True, exist_ok=True)
        write_file(target, content)


def write_descriptor(descriptor: int, content: bytes) -> None:
    """Writes to an open descriptor, which stays open.

    Raises:
        OSError: If it cannot be written.
    """
    with os.fdopen(os.dup(descriptor), "wb") as file:
        file.write(content)


def check_output(path: Path, *, overwrite: bool) -> None:
    """Looks whether a file can be written, before anything is made for it.

    Raises:
        OSError: If it cannot, or is there and must not be overwritten; the message says why.
    """
    if own_descriptor(path) is not None:
        return
    if path.is_dir():
        raise IsADirectoryError(f"{path} is a folder; it must be a file")
    target = Path(os.path.realpath(path))
    _check_writable(path, path if is_special(path) else target)
    if is_special(path):
        return
    if target.exists() and not overwrite:
        raise FileExistsError(f"{path} exists; --force overwrites it")
    folder = next(parent for parent in target.parents if parent.exists())
    if not folder.is_dir():
        raise NotADirectoryError(f"{path} cannot be written: {folder} is not a folder")
    if not os.access(folder, os.W_OK | os.X_OK):
        raise PermissionError(f"{path} cannot be written: the folder {folder} is read-only")


def is_special(path: Path) -> bool:
    """Whether a path is there and is no regular file: a pipe, a device, a socket, a folder.

    Raises:
        OSError: If it cannot be told, for a circle of links for example.
    """
    try:
        return not stat.S_ISREG(os.stat(path).st_mode)
    except (FileNotFoundError, NotADirectoryError):
        return False


def own_descriptor(path: Path) -> int | None:
    """The number of a descriptor of this process that a path such as `/dev/stdout` names.

    Opened by its path a file behind it would be cut off at its start.
    """
    for _ in range(MAX_LINKS):
        parent = os.path.realpath(path.parent)
        if re.fullmatch(rf"/proc/{os.getpid()}(/task/\d+)?/fd", parent) and path.name.isdecimal():
            return int(path.name)
        if not path.is_symlink():
            break
        path = Path(parent, os.readlink(path))
    return None


def _check_writable(path: Path, target: Path) -> None:
    """Refuses what is read-only, for root too, whom the system lets write everywhere."""
    if target.exists():
        by_mode = target.stat().st_mode & ALL_MAY_WRITE
        if not by_mode or not os.access(target, os.W_OK):
            raise PermissionError(f"{path} is read-only")
