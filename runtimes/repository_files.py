"""Compares every file of an exported repository with its lock, which is trusted.

Triton runs more than graphs: configs, `model.py`, and any model or version that lies in the folder.
So a file that the lock does not know counts as much as one that has changed.
"""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

from reelserve.runtimes.export_lock import LOCK_FILE, ArtefactFile, ExportLock, file_sha256

VERSION = "1"
"""Folder of a model's only version."""
PLACEHOLDER = ".gitkeep"
"""An empty file that keeps a version's folder in Git."""
PARITY_CLIPS = "export.parity.npz"
"""Results that an export which was cut off keeps for the next one; no server reads them."""
BYTE_CODE = "__pycache__"
SHOWN_FILES = 5
"""Files that a message names; it counts the rest."""


class ChangedFilesError(ValueError):
    """Files of a repository are not those of its export; the message names them."""


def verify_repository(repository: Path, lock: ExportLock) -> int:
    """Reads every file of a repository and compares it with the lock.

    Args:
        repository: Folder with one folder a model.
        lock: What its export wrote down.

    Returns:
        Number of files.

    Raises:
        ChangedFilesError: If a file has changed, is missing or was added.
    """
    remove_byte_code(repository)
    expected, found = _locked_files(lock), files_of(repository)
    wrong = [f"{repository / name} was added after the export" for name in found - expected.keys()]
    for name, file in expected.items():
        path = repository / name
        if name not in found:
            wrong.append(f"{path} is missing")
        elif path.stat().st_size != file.size_bytes or file_sha256(path) != file.sha256:
            wrong.append(f"{path} has changed since it was exported (SHA-256)")
    if wrong:
        rest = len(wrong) - SHOWN_FILES
        more = [f"and {rest} more"] if rest > 0 else []
        raise ChangedFilesError("; ".join([*sorted(wrong)[:SHOWN_FILES], *more]))
    return len(expected)


def remove_byte_code(repository: Path) -> None:
    """Removes Python's caches: Python runs them in place of the `model.py` that was compared.

    Where they cannot be removed they stay, and count as files that were added.
    """
    for folder in repository.glob(f"*/*/{BYTE_CODE}"):
        with contextlib.suppress(OSError):
            shutil.rmtree(folder)


def files_of(repository: Path) -> set[str]:
    """Every file but the lock, placeholders and results of an export that was cut off.

    Paths are relative to the repository, with slashes.

    A link to a folder counts as a file, whatever is in it.
    """
    return {path.relative_to(repository).as_posix() for path in _walk(repository)} - {LOCK_FILE}


def _walk(repository: Path) -> Iterator[Path]:
    for root, folders, names in os.walk(repository):
        linked = [name for name in folders if Path(root, name).is_symlink()]
        for path in (Path(root, name) for name in (*names, *linked)):
            placeholder = path.name == PLACEHOLDER and path.is_file() and not path.stat().st_size
            if path.is_symlink() or not (placeholder or path.name == PARITY_CLIPS):
                yield path


def _locked_files(lock: ExportLock) -> dict[str, ArtefactFile]:
    graphs = {
        f"{name}/{VERSION}/{file.name}": file
        for name, stage in lock.stages.items()
        for file in stage.files
    }
    return graphs | {file.name: file for file in lock.served}
