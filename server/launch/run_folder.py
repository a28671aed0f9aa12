"""The folders of one start, and what dead servers have left behind."""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import secrets
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

SHARED_MEMORY = Path("/dev/shm")
PREFIX = "reelserve-"
REGION_PREFIX = "reelserve_"
"""Beginning of the names of Triton's shared-memory regions; the start's token follows."""
TOKEN_BYTES = 16
NAME = re.compile(PREFIX + r"(?P<token>[0-9a-f]{32})")


@contextlib.contextmanager
def start_folder(parent: Path) -> Iterator[Path]:
    """A folder for this start alone, with an unguessable name, removed at the end.

    Whoever lives holds a lock on its folder; the folders without one, and the shared-memory
    regions that bear their token, are removed. No process id is asked for: containers that share
    `/dev/shm` do not see each other's processes.

    Args:
        parent: Folder for it.
    """
    # Between making a folder and locking it, another start must not take it for a dead one's.
    with locked(parent):
        clear_leftovers(parent)
        folder = parent / f"{PREFIX}{secrets.token_hex(TOKEN_BYTES)}"
        folder.mkdir(mode=0o700)
        descriptor = os.open(folder, os.O_RDONLY)
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    try:
        yield folder
    finally:
        remove(folder)
        os.close(descriptor)


def region_prefix(folder: Path) -> str:
    """Prefix of the names of this start's shared-memory regions."""
    return f"{REGION_PREFIX}{folder.name.removeprefix(PREFIX)}_"


def clear_leftovers(parent: Path) -> None:
    """Removes what dead servers of this user have left in a folder."""
    for folder in parent.glob(f"{PREFIX}*"):
        if not NAME.fullmatch(folder.name) or folder.is_symlink():
            continue
        with contextlib.suppress(OSError):
            descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
            try:
                if os.fstat(descriptor).st_uid == os.geteuid():
                    fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    remove(folder)
            finally:
                os.close(descriptor)


def remove(folder: Path) -> None:
    """Removes a start's folder and its shared-memory regions."""
    for region in folder.parent.glob(f"{region_prefix(folder)}*"):
        with contextlib.suppress(OSError):
            region.unlink(missing_ok=True)
    shutil.rmtree(folder, ignore_errors=True)


@contextlib.contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Holds a lock on a folder while the block runs."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def run_parent() -> Path:
    """Folder for temporary files whose path holds no white space.

    Triton starts a stage by a command line that it splits at white space; a stage below
    `/home/me/my videos` would die at once and Triton wait for it.
    """
    folder = Path(tempfile.gettempdir()).resolve()
    return Path("/tmp") if re.search(r"\s", str(folder)) else folder
