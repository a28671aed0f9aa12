"""The folders of one start, and what dead servers have left behind."""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import secrets
import shutil
import stat
import tempfile
from collections.abc import Iterator
from pathlib import Path

SHARED_MEMORY = Path("/dev/shm")
PREFIX = "reelserve-"
REGION_PREFIX = "reelserve_"
"""Beginning of the names of Triton's shared-memory regions; the start's token follows."""
TOKEN_BYTES = 16
NAME = re.compile(PREFIX + r"(?P<token>[0-9a-f]{32})")
REGION = re.compile(REGION_PREFIX + r"(?P<token>[0-9a-f]{32})_")
ATTEMPTS = 8
"""How often a folder is made again that another start took for a dead one's."""
IN_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW
OF_OTHERS, WRITABLE_BY_OTHERS = 0o077, 0o022
"""Bits of a mode that let anybody but the owner in."""


class FolderError(RuntimeError):
    """A folder cannot be trusted, or not be made; the message names it."""


@contextlib.contextmanager
def start_folder(parent: Path, single_user: bool = False) -> Iterator[Path]:
    """A folder for this start alone, with an unguessable name, removed at the end.

    Whoever lives holds a lock on its folder; the folders without one, and the shared-memory
    regions that bear no living server's token, are removed. No process id is asked for: containers
    that share `/dev/shm` do not see each other's processes.

    Args:
        parent: Folder for it.
        single_user: See `check_parent`.

    Raises:
        FolderError: If another user may replace what is in `parent`, or has taken the name, or no
            folder can be made there.
    """
    check_parent(parent, single_user)
    clear_leftovers(parent)
    folder, descriptor = _locked_folder(parent)
    try:
        yield folder
    finally:
        remove(folder)
        os.close(descriptor)


def check_parent(folder: Path, single_user: bool = False) -> None:
    """Raises `FolderError` if another user may rename or remove what this one makes in a folder.

    Args:
        folder: Which.
        single_user: Whether nobody else reaches it, so that its mode lets nobody in: volumes of a
            pod have mode 0777.
    """
    state = folder.stat()
    if state.st_uid not in (0, os.geteuid()):
        raise FolderError(f"{folder} belongs to user {state.st_uid}, who may replace what is in it")
    open_to_all = state.st_mode & WRITABLE_BY_OTHERS and not state.st_mode & stat.S_ISVTX
    if open_to_all and not single_user:
        mode = stat.S_IMODE(state.st_mode)
        raise FolderError(
            f"{folder} has mode {mode:04o}, so other users may replace what is in it; it must have "
            "the sticky bit (1777) or be writable by its owner alone; --single-user takes it as it "
            "is"
        )


def _locked_folder(parent: Path) -> tuple[Path, int]:
    """A new folder, and the descriptor that holds its lock.

    The lock is the folder's own. One on `parent` could be held for ever by any user.
    """
    for _ in range(ATTEMPTS):
        folder = parent / f"{PREFIX}{secrets.token_hex(TOKEN_BYTES)}"
        try:
            folder.mkdir(mode=0o700)
        except FileExistsError:
            raise FolderError(f"{folder} is there already, and not made by this start") from None
        except OSError as error:
            raise FolderError(
                f"no folder can be made in {parent}: {error.strerror}; it must be writable "
                "(TMPDIR names another folder for temporary files)"
            ) from None
        descriptor = -1
        with contextlib.suppress(OSError):
            descriptor = os.open(folder, IN_FOLDER)
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if os.path.samestat(os.fstat(descriptor), folder.stat(follow_symlinks=False)):
                return folder, descriptor
        # Between the two, another start has taken it for a dead one's.
        if descriptor >= 0:
            os.close(descriptor)
    raise FolderError(f"{parent}: a folder that was made there was removed {ATTEMPTS} times")


def close_regions(parent: Path, prefix: str) -> int:
    """Takes this user's shared-memory regions from other users; how many they could open."""
    opened = 0
    for region in parent.glob(f"{prefix}*"):
        state = region.lstat()
        ours = stat.S_ISREG(state.st_mode) and state.st_uid == os.geteuid()
        if ours and state.st_mode & OF_OTHERS:
            opened += 1
            region.chmod(0o600)
    return opened


def region_prefix(folder: Path) -> str:
    """Prefix of the names of this start's shared-memory regions."""
    return f"{REGION_PREFIX}{folder.name.removeprefix(PREFIX)}_"


def clear_leftovers(parent: Path) -> None:
    """Removes what dead servers of this user have left in a folder.

    A server makes its folder before its regions, so a region whose folder is gone has no owner.
    Triton may still have made one while it died with its launcher.
    """
    for folder in parent.glob(f"{PREFIX}*"):
        if not NAME.fullmatch(folder.name) or folder.is_symlink():
            continue
        with contextlib.suppress(OSError):
            descriptor = os.open(folder, IN_FOLDER)
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


def run_parent() -> Path:
    """Folder for temporary files whose path holds no white space.

    Triton starts a stage by a command line that it splits at white space; a stage below
    `/home/me/my videos` would die at once and Triton wait for it.
    """
    folder = Path(tempfile.gettempdir()).resolve()
    return Path("/tmp") if re.search(r"\s", str(folder)) else folder
