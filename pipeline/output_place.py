"""Places that a caller names for a file: what is there, and whether it can be written."""

from __future__ import annotations

import argparse
import os
import re
import stat
from collections.abc import Callable
from pathlib import Path

MAX_LINKS = 40
"""Symbolic links that Linux follows in one path."""
ALL_MAY_WRITE = stat.S_IWUSR | stat.S_IWGRP | stat.S_IWOTH


def check_output(path: Path, *, overwrite: bool = True) -> None:
    """Looks whether a file can be written, before anything is made for it.

    Args:
        path: The file; its folder need not exist.
        overwrite: Whether it may be there.

    Raises:
        OSError: If it cannot, or is there and must not be overwritten; the message says why.
    """
    if own_descriptor(path) is not None:
        return
    if path.is_dir():
        raise IsADirectoryError(f"{path} is a folder; it must be a file")
    target = Path(os.path.realpath(path))
    check_writable(path, path if is_special(path) else target)
    if is_special(path):
        return
    if target.exists() and not overwrite:
        raise FileExistsError(f"{path} exists; --force overwrites it")
    folder = next(parent for parent in target.parents if parent.exists())
    if not folder.is_dir():
        raise NotADirectoryError(f"{path} cannot be written: {folder} is not a folder")
    if not os.access(folder, os.W_OK | os.X_OK):
        raise PermissionError(f"{path} cannot be written: the folder {folder} is read-only")


def output_file(text: str) -> Path:
    """Reads a file on a command line that the command will write; it may be there.

    Raises:
        argparse.ArgumentTypeError: If it cannot be written; the message says why.
    """
    try:
        check_output(Path(text))
    except OSError as error:
        raise argparse.ArgumentTypeError(str(error)) from None
    return Path(text)


def output_folder(*names: str) -> Callable[[str], Path]:
    """Reads a folder on a command line into which the command will write files of these names."""

    def read(text: str) -> Path:
        for name in names:
            output_file(os.path.join(text, name))
        return Path(text)

    return read


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


def check_writable(path: Path, target: Path) -> None:
    """Refuses what is read-only, for root too, whom the system lets write everywhere.

    Args:
        path: As it was named.
        target: The file behind its links; it need not exist.

    Raises:
        PermissionError: If it is read-only.
    """
    if target.exists():
        by_mode = target.stat().st_mode & ALL_MAY_WRITE
        if not by_mode or not os.access(target, os.W_OK):
            raise PermissionError(f"{path} is read-only")
