"""Keeps graphs in `build/graphs/` for the next run of the tests.

They are taken by the rule that an interrupted export goes on by: the fingerprint of a stage. So
other code, weights, settings or libraries build it anew, and a file that is not whole does too. The
finished frames are compared with torch as before.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from unittest import mock

from reelserve.export.repository import RECORD_FILE, ExportRecord, ModelRepository

FOLDER = Path(__file__).parents[2] / "build" / "graphs"


@contextlib.contextmanager
def kept_graphs(how: str = "") -> Iterator[None]:
    """Exports in this block take what is kept, and keep what they build.

    Args:
        how: What shapes the files beyond the fingerprint, in a word.
    """
    own_current, own_accept = ModelRepository.current_record, ModelRepository.accept

    def current(
        repository: ModelRepository, stage: str, graph: str, fingerprint: str
    ) -> ExportRecord | None:
        record = own_current(repository, stage, graph, fingerprint)
        kept = place(fingerprint, how)
        if record is None and kept.is_dir():
            shutil.copytree(kept, repository.version_folder(stage), dirs_exist_ok=True)
            record = own_current(repository, stage, graph, fingerprint)
        return record

    def accept(repository: ModelRepository, stage: str, built: Path, record: ExportRecord) -> None:
        own_accept(repository, stage, built, record)
        folder = repository.version_folder(stage)
        names = [RECORD_FILE, *(file.name for file in record.files)]
        keep([folder / name for name in names], place(record.fingerprint, how))

    with (
        mock.patch.object(ModelRepository, "current_record", current),
        mock.patch.object(ModelRepository, "accept", accept),
    ):
        yield


def place(fingerprint: str, how: str) -> Path:
    """The folder of a stage's files. Code that is compiled for this processor fits no other."""
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    flags = next((line for line in lines if line.startswith("flags")), "")
    return FOLDER / hashlib.sha256(f"{fingerprint} {how} {flags}".encode()).hexdigest()[:32]


def keep(files: list[Path], folder: Path) -> None:
    """Copies files into a folder that appears whole; another worker's stays where it was first."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    partial = Path(tempfile.mkdtemp(dir=folder.parent))
    try:
        for file in files:
            shutil.copy(file, partial)
        with contextlib.suppress(OSError):
            os.rename(partial, folder)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
