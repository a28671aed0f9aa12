"""Writes stages into a Triton model repository, whole or not at all."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

import reelserve.export.engines
import reelserve.export.families
import reelserve.export.stages
import reelserve.kernels.temporal_attention
import reelserve.models
from reelserve.export.parity import StageParity
from reelserve.export.stages import StageSource

RECORD_FILE = "export.json"
VERSION = "1"
_PARTIAL_SUFFIX = ".partial"


@dataclass(frozen=True)
class ExportRecord:
    """What is known of an exported graph; stands beside it.

    Args:
        fingerprint: Of everything that it was made from.
        num_parameters: Weights of the stage.
        size_bytes: Of the graph file.
        seconds: That the export took.
        parity: Against torch.
    """

    fingerprint: str
    num_parameters: int
    size_bytes: int
    seconds: float
    parity: StageParity

    @classmethod
    def load(cls, path: Path) -> ExportRecord | None:
        """Reads a record; None where there is none or it is from another version."""
        try:
            raw = json.loads(path.read_text())
            return cls(**{**raw, "parity": StageParity(**raw["parity"])})
        except (FileNotFoundError, json.JSONDecodeError, TypeError, KeyError):
            return None


class ModelRepository:
    """The folder that Triton serves: `<stage>/1/` for every stage.

    Args:
        folder: Of the repository.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def version_folder(self, stage: str) -> Path:
        """`<stage>/1`, created where missing."""
        folder = self.folder / stage / VERSION
        folder.mkdir(parents=True, exist_ok=True)
        return folder

    def current_record(self, stage: str, graph: str, fingerprint: str) -> ExportRecord | None:
        """The record of a graph that is up to date, else None.

        Args:
            stage: Name of the stage.
            graph: File name of its graph.
            fingerprint: Of what it would be made from now.
        """
        folder = self.folder / stage / VERSION
        record = ExportRecord.load(folder / RECORD_FILE)
        if record is None or record.fingerprint != fingerprint:
            return None
        path = folder / graph
        return record if path.is_file() and path.stat().st_size == record.size_bytes else None

    def save_record(self, stage: str, record: ExportRecord) -> None:
        """Writes the record of a stage's graph."""
        text = json.dumps(asdict(record), indent=2) + "\n"
        write_file(self.version_folder(stage) / RECORD_FILE, text.encode())


@contextlib.contextmanager
def partial_file(path: Path) -> Iterator[Path]:
    """Path of a file to write beside `path`, removed at the end if it was not moved there."""
    partial = path.with_name(path.name + _PARTIAL_SUFFIX)
    try:
        yield partial
    finally:
        partial.unlink(missing_ok=True)


def write_file(path: Path, content: bytes) -> None:
    """Replaces a file at once: a reader sees the old content or the new one."""
    if path.is_file() and path.read_bytes() == content:
        return
    with partial_file(path) as partial:
        partial.write_bytes(content)
        os.replace(partial, path)


def fingerprint(stage: str, source: StageSource, versions: Mapping[str, str]) -> str:
    """Hash of everything that shapes a stage's graph.

    Args:
        stage: Name of the stage.
        source: Its checkpoint files and settings.
        versions: Of the engine's libraries.

    Returns:
        Hexadecimal SHA-256.
    """
    digest = hashlib.sha256()
    digest.update(json.dumps([stage, source.settings, dict(sorted(versions.items()))]).encode())
    for path in (*source.files, *_code_files()):
        digest.update(hashlib.sha256(path.read_bytes()).digest())
    return digest.hexdigest()


def _code_files() -> list[Path]:
    """Code that decides what a graph looks like."""
    packages = (reelserve.models, reelserve.export.engines, reelserve.export.families)
    folders = [Path(package.__file__).parent for package in packages if package.__file__]
    files = [path for folder in folders for path in sorted(folder.glob("*.py"))]
    modules = (reelserve.export.stages, reelserve.kernels.temporal_attention)
    return [*files, *(Path(module.__file__) for module in modules if module.__file__)]
