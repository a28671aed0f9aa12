"""Keeps graphs, packages and plans in `build/graphs/` for the next run of the tests.

They are taken by the rule that an interrupted export goes on by: the fingerprint of a stage. So
other code, weights or settings build a graph anew, and so do other libraries, another compiler or
another processor (`surroundings`). What a graph computes is compared with torch as before.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from functools import lru_cache
from importlib import metadata
from pathlib import Path
from unittest import mock

import torch

import reelserve.runtimes
from reelserve.export import parity, stage_exporter
from reelserve.export.fingerprints import code_files, combined
from reelserve.export.repository import RECORD_FILE, ExportRecord, ModelRepository
from reelserve.pipeline import contract

FOLDER = Path(__file__).parents[2] / "build" / "graphs"
EXPORTED = Path(__file__).parents[2] / "model_repository"
"""Exported before the tests: other checkpoints have stages in common with the bundled one."""
UNUSED_S = 14 * 24 * 3600
"""What no run has taken for so long goes: old code does not come back."""


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
        if record is None:
            kept, exported = place(fingerprint, how), ModelRepository(EXPORTED)
            other = None if how else own_current(exported, stage, graph, fingerprint)
            if other is not None and not kept.is_dir():
                keep_stage(exported, stage, other, kept)
            if take(kept, repository.version_folder(stage)):
                record = own_current(repository, stage, graph, fingerprint)
        return record

    def accept(repository: ModelRepository, stage: str, built: Path, record: ExportRecord) -> None:
        own_accept(repository, stage, built, record)
        keep_stage(repository, stage, record, place(record.fingerprint, how))

    with (
        mock.patch.object(ModelRepository, "current_record", current),
        mock.patch.object(ModelRepository, "accept", accept),
    ):
        yield


def kept_build(folder: Path, fingerprint: str, how: str, build: Callable[[], object]) -> None:
    """Lets a build fill a folder, or fills it with what that build made before.

    Args:
        folder: Empty.
        fingerprint: Hash of everything that shapes the files, but for the surroundings.
        how: What else does, in a word.
        build: Writes files into the folder; not called where they are kept.
    """
    kept = place(fingerprint, how)
    if not take(kept, folder):
        build()
        keep(list(folder.iterdir()), kept)


def own_fingerprint(*files: str) -> str:
    """What stands for a stage's fingerprint where tests make the stage themselves.

    Args:
        files: Code of the tests that shapes it.
    """
    return combined("", [*map(Path, files), *code_files()])


def place(fingerprint: str, how: str) -> Path:
    """The folder of a stage's files."""
    text = f"{fingerprint} {how} {surroundings()}"
    return FOLDER / hashlib.sha256(text.encode()).hexdigest()[:32]


@lru_cache
def surroundings() -> str:
    """Hash of what shapes every build and is not in a fingerprint.

    That is all installed libraries and the interpreter, the C++ compiler, the processor and the
    GPU, whose code fits no other, and our code that names tensors, reads graphs or judges them in
    a record.
    """
    # A set: how often one is found depends on who started the interpreter.
    found = sorted({f"{one.name} {one.version}" for one in metadata.distributions()})
    compiler = shutil.which(os.environ.get("CXX", "g++"))
    version = [compiler, "--version"] if compiler else ["true"]
    found.append(subprocess.run(version, capture_output=True, text=True, check=True).stdout)
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    found += [sys.version, next((line for line in lines if line.startswith("flags")), "")]
    if torch.cuda.is_available():
        found.append(str(torch.cuda.get_device_capability()))
    return combined("\n".join(found), _more_code_files())


def _more_code_files() -> list[Path]:
    modules = [Path(str(module.__file__)) for module in (contract, parity, stage_exporter)]
    return [*modules, *sorted(Path(str(reelserve.runtimes.__file__)).parent.glob("*.py"))]


def take(kept: Path, folder: Path) -> bool:
    """Copies what is kept into a folder; False where it is not."""
    if not kept.is_dir():
        return False
    os.utime(kept)
    shutil.copytree(kept, folder, dirs_exist_ok=True)
    return True


def keep_stage(repository: ModelRepository, stage: str, record: ExportRecord, kept: Path) -> None:
    """Keeps what a repository has of a stage."""
    names = [RECORD_FILE, *(file.name for file in record.files)]
    keep([repository.version_folder(stage) / name for name in names], kept)


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
    _drop_unused()


def _drop_unused() -> None:
    for folder in FOLDER.iterdir():
        with contextlib.suppress(OSError):
            if time.time() - folder.stat().st_mtime > UNUSED_S:
                shutil.rmtree(folder)
