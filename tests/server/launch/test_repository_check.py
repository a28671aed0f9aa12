"""What the launcher says of a repository before it starts Triton."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path

import pytest

from reelserve.runtimes.export_lock import LOCK_FILE, ExportLock
from reelserve.server.launch import repository_check as repository_module
from reelserve.server.launch.repository_check import (
    RepositoryError,
    check_repository,
    gpu_architectures,
    is_for_gpu,
)
from reelserve.server.launch.running_server import Server
from reelserve.server.launch.triton_process import ServerError
from reelserve.server.launch.tritons import ServeOptions
from tests.server.tiny_repository import write_lock

AGAIN = r"export the checkpoint again with `reelserve export` \(bundled: make export\)"


@pytest.fixture
def copy(tiny_repository, tmp_path) -> Path:
    return Path(shutil.copytree(tiny_repository, tmp_path / "copy"))


def nvidia_smi(tmp_path: Path, text: str) -> tuple[str, ...]:
    """A command that answers as the driver's tool would."""
    script = tmp_path / "smi.py"
    script.write_text(f"print({text!r})")
    return sys.executable, str(script)


def test_check_repository_gives_the_lock_when_all_is_there(copy):
    lock = check_repository(copy, verify=True)

    assert (lock.engine, lock.config_name, len(lock.stages)) == ("onnxruntime", "", 5)
    assert lock == ExportLock.load(copy)


def test_check_repository_refuses_when_there_are_no_models(tmp_path):
    with pytest.raises(RepositoryError, match=r"is no model repository.*`reelserve export` makes"):
        check_repository(tmp_path)


def test_check_repository_says_what_to_do_when_a_graph_is_missing(copy):
    (copy / "upsampler" / "1" / "model.onnx").unlink()

    with pytest.raises(RepositoryError, match=f"upsampler/1/model.onnx is missing; {AGAIN}"):
        check_repository(copy)


def test_check_repository_refuses_when_a_graph_is_short(copy):
    graph = copy / "denoiser" / "1" / "model.onnx"
    graph.write_bytes(graph.read_bytes()[:-1])

    with pytest.raises(RepositoryError, match=r"denoiser/1/model.onnx has \d+ bytes; \d+ were exp"):
        check_repository(copy)


def test_check_repository_refuses_a_changed_graph_when_it_verifies(copy):
    graph = copy / "denoiser" / "1" / "model.onnx"
    graph.write_bytes(graph.read_bytes()[:-1] + b"!")

    check_repository(copy)
    with pytest.raises(RepositoryError, match=r"denoiser/1/model.onnx has changed .*SHA-256"):
        check_repository(copy, verify=True)


def test_check_repository_names_every_other_file_that_changed_when_it_verifies(copy):
    (copy / "prompt_processor" / "1" / "model.py").write_text("import os")
    (copy / "denoiser" / "config.pbtxt").write_text("# another")
    (copy / "video_encoder" / "1" / "checkpoint.json").unlink()
    (copy / "extra_model" / "1").mkdir(parents=True)
    (copy / "extra_model" / "1" / "model.py").touch()

    check_repository(copy)
    with pytest.raises(RepositoryError) as refused:
        check_repository(copy, verify=True)
    for change in (
        "prompt_processor/1/model.py has changed",
        "denoiser/config.pbtxt has changed",
        "video_encoder/1/checkpoint.json is missing",
        "extra_model/1/model.py was added after the export",
    ):
        assert f"{copy}/{change}" in str(refused.value)


def test_check_repository_refuses_when_there_is_no_lock(copy):
    """An export of an earlier version, or one that was cut off."""
    (copy / LOCK_FILE).unlink()

    with pytest.raises(RepositoryError, match=f"{LOCK_FILE} is missing: nothing was .*{AGAIN}"):
        check_repository(copy)


@pytest.mark.parametrize("content", [None, 'name: "text_to_video"\nbackend: "python"\n'])
def test_check_repository_refuses_when_an_older_version_laid_it_out(copy, content):
    config = copy / "text_to_video" / "config.pbtxt"
    config.unlink()
    if content is not None:
        config.write_text(content)

    with pytest.raises(RepositoryError, match=f"config.pbtxt is no ensemble: an older .*{AGAIN}"):
        check_repository(copy)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda raw: "{", "cannot be read"),
        (lambda raw: "[]", "has format None; the format must be 2"),
        (lambda raw: json.dumps({**raw, "format": 9}), "has format 9"),
        (lambda raw: json.dumps({**raw, "stages": 1}), "is damaged: AttributeError"),
        (lambda raw: json.dumps({"format": 2}), "is damaged: KeyError: 'stages'"),
        (lambda raw: json.dumps({**raw, "extra": 1}), "is damaged: TypeError"),
        (lambda raw: json.dumps({**raw, "stages": {}}), "lacks stage text_encoder"),
    ],
    ids=["no-json", "no-object", "format", "no-stages", "empty", "extra", "lacks-a-stage"],
)
def test_check_repository_refuses_when_the_lock_is_damaged(copy, change, message):
    path = copy / LOCK_FILE
    path.write_text(change(json.loads(path.read_text())))

    with pytest.raises(RepositoryError, match=f"{message}.*{AGAIN}"):
        check_repository(copy)


def test_check_repository_refuses_when_a_bound_library_has_another_version(copy):
    write_lock(copy, engine="pytorch", bound_versions={"numpy": "0.1", "not-installed": "1"})

    with pytest.raises(RepositoryError, match=r"with numpy 0\.1, and 1\.26\.4 is inst"):
        check_repository(copy)


@pytest.mark.parametrize("architecture", ["sm_89", "sm_80+sm_89"])
def test_check_repository_takes_the_gpu_that_it_was_made_for(
    copy, tmp_path, monkeypatch, architecture
):
    write_lock(copy, engine="tensorrt", architecture=architecture)
    monkeypatch.setattr(repository_module, "NVIDIA_SMI", nvidia_smi(tmp_path, "8.9\n9.0"))

    assert check_repository(copy).architecture == architecture


@pytest.mark.parametrize("architecture", ["sm_89", "sm_86+sm_89"])
def test_check_repository_refuses_when_the_gpu_is_another_one(
    copy, tmp_path, monkeypatch, architecture
):
    write_lock(copy, engine="tensorrt", architecture=architecture)
    monkeypatch.setattr(repository_module, "NVIDIA_SMI", nvidia_smi(tmp_path, "8.0\n9.0"))

    with pytest.raises(RepositoryError, match=r"a GPU of sm_8.*; those here are sm_80, sm_90"):
        check_repository(copy)


def test_check_repository_refuses_when_there_is_no_gpu(copy, monkeypatch):
    write_lock(copy, engine="tensorrt", architecture="sm_90")
    monkeypatch.setattr(repository_module, "NVIDIA_SMI", ("no-such-command",))

    assert gpu_architectures() == []
    with pytest.raises(RepositoryError, match=r"sm_90; nvidia-smi finds none here: serve them on"):
        check_repository(copy)


def test_start_refuses_what_the_check_refuses(copy):
    (copy / LOCK_FILE).unlink()

    with pytest.raises(ServerError, match=f"{LOCK_FILE} is missing"):
        Server(ServeOptions(copy)).start()


@pytest.mark.parametrize(
    ("architecture", "expected"),
    [("", False), ("cpu", False), ("sm_90", True), ("sm_80+sm_89", True)],
)
def test_is_for_gpu_reads_the_architecture_of_the_lock(copy, architecture, expected):
    write_lock(copy, architecture=architecture)
    lock = ExportLock.load(copy)
    assert lock is not None and is_for_gpu(lock) is expected
