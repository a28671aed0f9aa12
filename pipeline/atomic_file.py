"""Replaces a file at once: a reader sees the old content or the new one, never a part of either."""

from __future__ import annotations

import contextlib
import os
import stat
import uuid
from collections.abc import Iterator
from pathlib import Path


@contextlib.contextmanager
def replaced_file(path: str | os.PathLike[str], *, durable: bool = False) -> Iterator[Path]:
    """Gives a block a temporary path to write, which takes the place of `path` at its end.

    The temporary file stands in the same folder, hidden, under a name of its own for every call
    and with the suffix of `path`, by which many libraries choose the format. When the block
    raises, it is removed and `path` stays as it was. A file that was there passes its permissions
    on; a new one has those that the block gave it.

    Args:
        path: File to replace or to create. Its folder must exist.
        durable: Whether to wait until file and name are on the disk, to survive a loss of power.

    Raises:
        OSError: If the file cannot be written or renamed, or the block has written none.
    """
    target = Path(path)
    hidden = f".{target.stem}.{uuid.uuid4().hex[:8]}.partial{target.suffix}"
    partial = target.with_name(hidden)
    try:
        yield partial
        with contextlib.suppress(FileNotFoundError):
            partial.chmod(stat.S_IMODE(target.stat().st_mode))
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
        path: File to replace or to create. Its folder must exist.
        content: New content.
        durable: Whether to wait until file and name are on the disk.

    Raises:
        OSError: If the file cannot be written or renamed.
    """
    data = content.encode("utf-8") if isinstance(content, str) else content
    with replaced_file(path, durable=durable) as partial:
        partial.write_bytes(data)


def _flush(path: Path) -> None:
    """Waits until a file's content or a folder's names are on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
