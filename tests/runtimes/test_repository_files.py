"""What of a repository is compared with its lock."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from reelserve.runtimes.export_lock import ExportLock
from reelserve.runtimes.repository_files import (
    PARITY_CLIPS,
    ChangedFilesError,
    files_of,
    verify_repository,
)
from tests.server.tiny_repository import lock_of

GRAPH, CODE, CONFIG = "denoiser/1/model.onnx", "video_encoder/1/model.py", "denoiser/config.pbtxt"


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    folder = tmp_path / "repository"
    for name in (GRAPH, CODE, CONFIG):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(name)
    (folder / "denoiser" / "1" / ".gitkeep").touch()
    return folder


@pytest.fixture
def lock(repository: Path) -> ExportLock:
    made = lock_of(repository, {"denoiser": GRAPH}, (CODE, CONFIG))
    made.save(repository)
    return made


def test_verify_repository_counts_the_files(repository: Path, lock: ExportLock) -> None:
    assert verify_repository(repository, lock) == 3
    assert ExportLock.load(repository) == lock


@pytest.mark.parametrize("name", [GRAPH, CODE, CONFIG])
def test_verify_repository_names_what_has_changed_or_gone(repository, lock, name: str) -> None:
    path = repository / name
    path.write_text(name.upper())
    with pytest.raises(ChangedFilesError, match=rf"^{path} has changed since it was exported"):
        verify_repository(repository, lock)
    path.unlink()
    with pytest.raises(ChangedFilesError, match=f"^{path} is missing$"):
        verify_repository(repository, lock)


@pytest.mark.parametrize(
    "name",
    [
        "denoiser/1/model.py",
        "denoiser/2/model.onnx",
        "denoiser/configs/other.pbtxt",
        "other/config.pbtxt",
        "video_encoder/1/helper.py",
        "libother.so",
        "video_encoder/1/.gitkeep",
    ],
)
def test_verify_repository_names_what_was_added(repository, lock, name: str) -> None:
    (repository / name).parent.mkdir(parents=True, exist_ok=True)
    (repository / name).write_text("more")
    with pytest.raises(ChangedFilesError, match=f"^{repository / name} was added after"):
        verify_repository(repository, lock)


def test_verify_repository_names_a_link_to_a_folder(repository, lock, tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (repository / "linked").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(ChangedFilesError, match="linked was added after the export"):
        verify_repository(repository, lock)


def test_verify_repository_removes_byte_code_which_python_would_run(repository, lock) -> None:
    cache = repository / "video_encoder" / "1" / "__pycache__"
    cache.mkdir()
    (cache / "model.cpython-311.pyc").write_bytes(b"other code")
    verify_repository(repository, lock)
    assert not cache.exists()


def test_verify_repository_names_the_first_files_and_counts_the_rest(repository, lock) -> None:
    none = replace(lock, served=(), stages={})
    for number in range(9):
        (repository / f"added{number}").touch()
    with pytest.raises(ChangedFilesError, match=r"added4 was added after the export; and 7 more$"):
        verify_repository(repository, none)


def test_files_of_leaves_out_what_no_server_reads(repository, lock) -> None:
    (repository / "denoiser" / "1" / PARITY_CLIPS).touch()
    assert files_of(repository) == {GRAPH, CODE, CONFIG}
