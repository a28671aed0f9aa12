"""What a model repository was exported as: `export.lock.json`, written last by the exporter.

The server reads it before it starts, so that a repository which is not whole, or is bound to
another machine, is refused with a reason instead of failing in an engine.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from reelserve.pipeline.atomic_file import write_file

LOCK_FILE = "export.lock.json"
FORMAT = 2
"""Version of the format; a server reads no other."""
_READ_BYTES = 2**22


class LockError(ValueError):
    """A lock cannot be read; the message says why."""


@dataclass(frozen=True)
class ArtefactFile:
    """One file of an exported stage.

    Args:
        name: Name in the stage's version folder; of a file that belongs to no graph, its path in
            the repository, with slashes.
        size_bytes: Size of the file.
        sha256: Hash of its content, hexadecimal.
    """

    name: str
    size_bytes: int
    sha256: str

    @classmethod
    def of(cls, path: Path, name: str = "") -> ArtefactFile:
        """Describes a file as it is, by its own name where none is given."""
        return cls(name or path.name, path.stat().st_size, file_sha256(path))


@dataclass(frozen=True)
class LockedStage:
    """An exported stage.

    Args:
        fingerprint: Hash of everything that it was made from.
        files: Its graph first, then what the graph refers to.
    """

    fingerprint: str
    files: tuple[ArtefactFile, ...]


@dataclass(frozen=True)
class ExportLock:
    """A whole export.

    Args:
        checkpoint: Its name.
        checkpoint_sha256: Hash of the files that stages and tokenizer were made from.
        family: Family of the checkpoint.
        engine: Engine that runs the stages.
        config_name: Name in `configs/` of the configs that serve them; empty: `config.pbtxt`.
        precision: Precision of the stages.
        architecture: GPU that the stages are bound to, for example `sm_90`; empty: any machine.
        versions: Versions of the libraries that shaped the graphs.
        bound_versions: Libraries that a server must have in the same version.
        stages: Exported stages by name.
        served: Every other file of the repository: configs, Python stages and what they read.
    """

    checkpoint: str
    checkpoint_sha256: str
    family: str
    engine: str
    config_name: str
    precision: str
    architecture: str
    versions: Mapping[str, str]
    bound_versions: Mapping[str, str]
    stages: Mapping[str, LockedStage]
    served: tuple[ArtefactFile, ...]

    def to_json(self) -> str:
        """Content of `export.lock.json`."""
        return json.dumps({"format": FORMAT, **asdict(self)}, indent=2) + "\n"

    def save(self, repository: Path) -> None:
        """Writes the lock of a repository."""
        write_file(repository / LOCK_FILE, self.to_json())

    @classmethod
    def load(cls, repository: Path) -> ExportLock | None:
        """Reads the lock of a repository; None where there is none.

        Raises:
            LockError: If it is not a lock of this format.
        """
        path = repository / LOCK_FILE
        try:
            raw = json.loads(path.read_text())
        except FileNotFoundError:
            return None
        except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
            raise LockError(f"{path} cannot be read: {error}") from None
        found = raw.get("format") if isinstance(raw, dict) else None
        if found != FORMAT:
            raise LockError(f"{path} has format {found}; the format must be {FORMAT}")
        try:
            return _parsed(raw)
        except (AttributeError, KeyError, TypeError) as error:
            raise LockError(f"{path} is damaged: {type(error).__name__}: {error}") from None


def _parsed(raw: Mapping[str, Any]) -> ExportLock:
    parsed = ("format", "stages", "served")
    values = {name: value for name, value in raw.items() if name not in parsed}
    stages = {
        name: LockedStage(
            fingerprint=stage["fingerprint"],
            files=tuple(ArtefactFile(**file) for file in stage["files"]),
        )
        for name, stage in raw["stages"].items()
    }
    served = tuple(ArtefactFile(**file) for file in raw["served"])
    return ExportLock(**values, stages=stages, served=served)


def file_sha256(path: Path) -> str:
    """Hexadecimal SHA-256 of a file's content."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while part := file.read(_READ_BYTES):
            digest.update(part)
    return digest.hexdigest()
