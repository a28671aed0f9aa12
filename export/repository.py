"""Writes stages into a Triton model repository, whole or not at all."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import shutil
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import reelserve.export
from reelserve.export.parity import StageParity
from reelserve.pipeline.atomic_file import write_file
from reelserve.runtimes.export_lock import LOCK_FILE, ArtefactFile, ExportLock, LockError
from reelserve.runtimes.repository_files import VERSION, remove_byte_code

RECORD_FILE = "export.json"
TEMPLATE = Path(str(reelserve.export.__file__)).parents[1] / "model_repository"
"""Configs and Python stages: beside this package in a checkout and in an installation alike."""
TEMPLATE_FILES = ("*/config.pbtxt", "*/configs/*.pbtxt", f"*/{VERSION}/model.py")
RETIRED = ("text_to_video_stream", f"text_to_video/{VERSION}/model.py")
"""Files of older versions, which are removed because Triton would still find them."""


class ExportFolderError(ValueError):
    """The folder cannot be exported into; the message says why."""


@dataclass(frozen=True)
class ExportRecord:
    """What is known of an exported graph; stands beside it.

    Args:
        fingerprint: Hash of everything that it was made from.
        num_parameters: Weights of the stage.
        seconds: Time that the export took.
        parity: Error against torch.
        files: The graph, then what it refers to.
    """

    fingerprint: str
    num_parameters: int
    seconds: float
    parity: StageParity
    files: tuple[ArtefactFile, ...]

    @property
    def size_bytes(self) -> int:
        """Size of all its files."""
        return sum(file.size_bytes for file in self.files)

    @classmethod
    def load(cls, path: Path) -> ExportRecord | None:
        """Reads a record; None where there is none or it is from another version."""
        try:
            raw = json.loads(path.read_text())
            parity = StageParity(**raw["parity"])
            files = tuple(ArtefactFile(**file) for file in raw["files"])
            return cls(**{**raw, "parity": parity, "files": files})
        except (FileNotFoundError, json.JSONDecodeError, TypeError, KeyError):
            return None


class ModelRepository:
    """The folder that Triton serves: `<stage>/1/` for every stage.

    Args:
        folder: Folder of the repository; made by `lay_out` where it is missing.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    @contextlib.contextmanager
    def exclusive(self) -> Iterator[None]:
        """Keeps other exports out of the folder until the block ends, however it ends.

        Raises:
            ExportFolderError: If another export is in it.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(self.folder, os.O_RDONLY)
        try:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise ExportFolderError(
                    f"another export into {self.folder} is running; wait for its end"
                ) from None
            yield
        finally:
            os.close(descriptor)

    def lay_out(self) -> tuple[str, ...]:
        """Copies configs and Python stages from the package where they are missing or differ.

        Returns:
            Files that were there and differed, relative to the folder.

        Raises:
            ExportFolderError: If the folder holds something else than a model repository.
        """
        if not list(self.folder.glob("*/config.pbtxt")) and any(self.folder.iterdir()):
            raise ExportFolderError(
                f"{self.folder} holds files and is no model repository; name a new folder"
            )
        updated = []
        remove_byte_code(self.folder)
        for name in template_files():
            path, content = self.folder / name, (TEMPLATE / name).read_bytes()
            existed = path.is_file()
            path.parent.mkdir(parents=True, exist_ok=True)
            if update_file(path, content) and existed:
                updated.append(name)
        for name in RETIRED:
            shutil.rmtree(self.folder / name, ignore_errors=True)
            with contextlib.suppress(OSError):
                (self.folder / name).unlink(missing_ok=True)
        for config in self.folder.glob("*/config.pbtxt"):
            # Triton wants a version of the ensemble too, which has no file.
            (config.parent / VERSION).mkdir(exist_ok=True)
        return tuple(updated)

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
            fingerprint: Hash of what it would be made from now.
        """
        folder = self.folder / stage / VERSION
        record = ExportRecord.load(folder / RECORD_FILE)
        if record is None or record.fingerprint != fingerprint or not record.files:
            return None
        whole = all(
            (path := folder / file.name).is_file() and path.stat().st_size == file.size_bytes
            for file in record.files
        )
        return record if whole and record.files[0].name == graph else None

    @contextlib.contextmanager
    def partial(self, stage: str) -> Iterator[Path]:
        """A folder to build a stage's graph in, removed with what was not moved out of it."""
        folder = self.version_folder(stage) / "graph.partial"
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        try:
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    def accept(self, stage: str, partial: Path, record: ExportRecord) -> None:
        """Moves a stage's graph and record into place, and the old graph out of the way.

        Until the whole export is done the repository has no lock: an export that is cut off here
        leaves nothing that is served or taken for up to date.

        Args:
            stage: Name of the stage.
            partial: Folder with the files of the record.
            record: Record of the new graph.
        """
        folder = self.version_folder(stage)
        old = ExportRecord.load(folder / RECORD_FILE)
        self.unlock()
        (folder / RECORD_FILE).unlink(missing_ok=True)
        kept = {file.name for file in record.files}
        for file in old.files if old else ():
            if file.name not in kept:
                (folder / file.name).unlink(missing_ok=True)
        for file in record.files:
            os.replace(partial / file.name, folder / file.name)
        write_file(folder / RECORD_FILE, json.dumps(asdict(record), indent=2) + "\n")

    def unlock(self) -> None:
        """Removes the lock: the repository is not whole until the next one is written."""
        (self.folder / LOCK_FILE).unlink(missing_ok=True)

    def served_files(
        self, records: Iterable[str], others: Iterable[str]
    ) -> tuple[ArtefactFile, ...]:
        """What an export has written beside the graphs.

        Args:
            records: Stages that have a record.
            others: Paths of files that came from the checkpoint, with slashes.
        """
        named = (f"{stage}/{VERSION}/{RECORD_FILE}" for stage in records)
        names = sorted({*template_files(), *named, *others})
        return tuple(ArtefactFile.of(self.folder / name, name) for name in names)

    def lock(self) -> ExportLock | None:
        """The lock; None where there is none that can be read."""
        try:
            return ExportLock.load(self.folder)
        except LockError:
            return None


def template_files() -> list[str]:
    """Paths of the configs and Python stages that this package brings, with slashes."""
    found = (path for pattern in TEMPLATE_FILES for path in TEMPLATE.glob(pattern))
    return sorted(path.relative_to(TEMPLATE).as_posix() for path in found)


def update_file(path: Path, content: bytes) -> bool:
    """Replaces a file at once where its content differs.

    Returns:
        Whether it was written; False where it held the content already.
    """
    if path.is_file() and path.read_bytes() == content:
        return False
    write_file(path, content)
    return True
