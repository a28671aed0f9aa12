"""Writes files whole: a reader sees the old content or the new one, never a part of either.

That holds for regular files. A pipe, a device or a descriptor such as `/dev/stdout` is no file to
be replaced: the content is written to it.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import stat
import tempfile
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from reelserve.pipeline.output_place import check_writable, is_special, own_descriptor


@contextlib.contextmanager
def replaced_file(path: str | os.PathLike[str], *, durable: bool = False) -> Iterator[Path]:
    """Gives a block a temporary path to write, whose content `path` has at its end.

    The temporary file stands in the same folder, hidden, under a name of its own for every call
    and with the suffix of `path`, by which many libraries choose the format. When the block
    raises, it is removed and `path` stays as it was. A symbolic link stays one: the file behind it
    is replaced. A file that was there passes its permissions and its owner on; a new one has those
    that the block gave it.

    Args:
        path: File to replace or to create. Its folder must exist.
        durable: Whether to wait until file and name are on the disk, to survive a loss of power.

    Raises:
        OSError: If the file cannot be written or renamed, is read-only, or the block has written
            none.
    """
    named = Path(path)
    if _is_written_through(named):
        with tempfile.TemporaryDirectory() as folder:
            whole = Path(folder, f"whole{named.suffix}")
            yield whole
            with whole.open("rb") as content, _opened(named) as file:
                shutil.copyfileobj(content, file)
        return
    target = Path(os.path.realpath(named))
    check_writable(named, target)
    partial = target.with_name(f".{target.stem}.{uuid.uuid4().hex[:8]}.partial{target.suffix}")
    try:
        yield partial
        _pass_on(target, partial)
        if durable:
            _flush(partial)
        os.replace(partial, target)
        if durable:
            _flush(target.parent)
    finally:
        partial.unlink(missing_ok=True)


def write_file(
    path: str | os.PathLike[str], content: str | bytes | memoryview, *, durable: bool = False
) -> None:
    """Replaces a file's content by text, as UTF-8, or by bytes.

    Args:
        path: File to replace or to create; its folder is made where it is missing.
        content: New content.
        durable: Whether to wait until file and name are on the disk.

    Raises:
        OSError: If the file cannot be written or renamed, or is read-only.
    """
    data = content.encode("utf-8") if isinstance(content, str) else content
    if _is_written_through(Path(path)):
        with _opened(Path(path)) as file:
            file.write(data)
        return
    Path(os.path.realpath(path)).parent.mkdir(parents=True, exist_ok=True)
    with replaced_file(path, durable=durable) as partial:
        partial.write_bytes(data)


def write_descriptor(descriptor: int, content: bytes) -> None:
    """Writes to an open descriptor, which stays open.

    Raises:
        OSError: If it cannot be written.
    """
    with _duplicate(descriptor) as file:
        file.write(content)


def _is_written_through(path: Path) -> bool:
    return own_descriptor(path) is not None or (is_special(path) and not path.is_dir())


def _opened(path: Path) -> contextlib.AbstractContextManager[Any]:
    descriptor = own_descriptor(path)
    return path.open("wb") if descriptor is None else _duplicate(descriptor)


def _duplicate(descriptor: int) -> contextlib.AbstractContextManager[Any]:
    return os.fdopen(os.dup(descriptor), "wb")


def _pass_on(target: Path, partial: Path) -> None:
    """Gives a file the owner and the permissions of the one that it replaces."""
    with contextlib.suppress(FileNotFoundError):
        old = target.stat()
        # Only root may give files away; who owns the folder may still replace them.
        with contextlib.suppress(PermissionError):
            os.chown(partial, old.st_uid, old.st_gid)
        partial.chmod(stat.S_IMODE(old.st_mode))


def _flush(path: Path) -> None:
    """Waits until a file's content or a folder's names are on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
