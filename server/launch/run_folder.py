"""The folders of one start, and what dead servers have left behind."""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import secrets
import shutil
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

SHARED_MEMORY = Path("/dev/shm")
PREFIX = "reelserve-"
REGION_PREFIX = "reelserve_"
"""Beginning of the names of Triton's shared-memory regions; the start's token follows."""
TOKEN_BYTES = 16
NAME = re.compile(PREFIX + r"(?P<token>[0-9a-f]{32})")
REGION = re.compile(REGION_PREFIX + r"(?P<token>[0-9a-f]{32})_")
LOCK_WAIT_S = 30.0
"""How long other starts may take to clear what dead servers have left."""
LOCK_POLL_S = 0.02


class RunFolderError(RuntimeError):
    """A start cannot have a folder of its own; the message says why."""


@contextlib.contextmanager
def start_folder(parent: Path) -> Iterator[Path]:
    """A folder for this start alone, with an unguessable name, removed at the end.

    Whoever lives holds a lock on its folder; the folders without one, and the shared-memory
    regions that bear no living server's token, are removed. No process id is asked for: containers
    that share `/dev/shm` do not see each other's processes.

    Args:
        parent: Folder for it.

    Raises:
        RunFolderError: If somebody keeps a lock on `parent`, or no folder can be made there.
    """
    # Between making a folder and locking it, another start must not take it for a dead one's.
    with locked(parent):
        clear_leftovers(parent)
        folder = parent / f"{PREFIX}{secrets.token_hex(TOKEN_BYTES)}"
        try:
            folder.mkdir(mode=0o700)
        except OSError as error:
            raise RunFolderError(
                f"no folder can be made in {parent}: {error.strerror}; it must be writable "
                "(TMPDIR names another folder for temporary files)"
            ) from None
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
    """Removes what dead servers of this user have left in a folder.

    To be called under its lock: a server makes its folder before its regions, so a region whose
    folder is gone has no owner. Triton may still have made one while it died with its launcher.
    """
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
    for region in parent.glob(f"{REGION_PREFIX}*"):
        named = REGION.match(region.name)
        if named and not (parent / f"{PREFIX}{named['token']}").exists():
            with contextlib.suppress(OSError):
                if region.lstat().st_uid == os.geteuid():
                    region.unlink()


def remove(folder: Path) -> None:
    """Removes a start's folder and its shared-memory regions."""
    for region in folder.parent.glob(f"{region_prefix(folder)}*"):
        with contextlib.suppress(OSError):
            region.unlink(missing_ok=True)
    shutil.rmtree(folder, ignore_errors=True)


@contextlib.contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Holds a lock on a folder while the block runs.

    Raises:
        RunFolderError: If somebody else keeps it for `LOCK_WAIT_S`: anyone may lock `/tmp`.
    """
    try:
        descriptor = os.open(folder, os.O_RDONLY)
    except OSError as error:
        raise RunFolderError(f"{folder} cannot be read: {error.strerror}") from None
    try:
        _wait_for_lock(descriptor, folder)
        yield
    finally:
        os.close(descriptor)


def _wait_for_lock(descriptor: int, folder: Path) -> None:
    deadline = time.monotonic() + LOCK_WAIT_S
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() > deadline:
                raise RunFolderError(
                    f"another process has kept a lock on {folder} for {LOCK_WAIT_S:g} s; "
                    f"`lslocks` names it"
                ) from None
            time.sleep(LOCK_POLL_S)
        except OSError as error:
            raise RunFolderError(f"{folder} cannot be locked: {error.strerror}") from None
        else:
            return


def run_parent() -> Path:
    """Folder for temporary files whose path holds no white space.

    Triton starts a stage by a command line that it splits at white space; a stage below
    `/home/me/my videos` would die at once and Triton wait for it.
    """
    folder = Path(tempfile.gettempdir()).resolve()
    return Path("/tmp") if re.search(r"\s", str(folder)) else folder
