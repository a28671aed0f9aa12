from pathlib import Path

import pytest

from reelserve.export.fingerprints import stage_fingerprint
from reelserve.export.parity import StageParity
from reelserve.export.repository import (
    RECORD_FILE,
    TEMPLATE,
    ExportFolderError,
    ExportRecord,
    ModelRepository,
    update_file,
)
from reelserve.export.stages import StageSource
from reelserve.pipeline.contract import STAGES
from reelserve.runtimes.export_lock import LOCK_FILE, ArtefactFile


@pytest.fixture
def repository(tmp_path: Path) -> ModelRepository:
    """A new one."""
    made = ModelRepository(tmp_path / "repository")
    made.folder.mkdir()
    assert made.lay_out() == ()
    return made


def test_lay_out_makes_a_repository_of_configs_and_python_stages(repository) -> None:
    files = {str(path.relative_to(repository.folder)) for path in repository.folder.rglob("*.*")}
    assert {f"{stage}/config.pbtxt" for stage in STAGES} <= files
    assert {f"{name}/1/model.py" for name, stage in STAGES.items() if not stage.engine} <= files
    assert "denoiser/configs/onnxruntime_gpu.pbtxt" in files
    assert not [name for name in files if name.endswith((".onnx", ".json", ".npz"))]


def test_lay_out_updates_what_is_of_another_version_and_says_so(repository) -> None:
    config = repository.folder / "denoiser" / "config.pbtxt"
    config.write_text("# of an older version")
    (repository.folder / "video_encoder" / "1" / "model.py").unlink()
    own = repository.folder / "denoiser" / "1" / "notes.txt"
    own.write_text("kept")

    assert repository.lay_out() == ("denoiser/config.pbtxt",)
    assert config.read_bytes() == (TEMPLATE / "denoiser" / "config.pbtxt").read_bytes()
    assert (repository.folder / "video_encoder" / "1" / "model.py").is_file()
    assert own.read_text() == "kept"
    assert repository.lay_out() == ()


def test_lay_out_makes_an_ensemble_of_what_an_older_version_has_laid_out(repository) -> None:
    public, stream = (repository.folder / f"text_to_video{end}" for end in ("", "_stream"))
    (stream / "1").mkdir(parents=True)
    (stream / "config.pbtxt").write_text("# of an older version")
    for model in (public, stream):
        (model / "1" / "model.py").write_text("# of an older version")

    assert repository.lay_out() == ()
    assert not stream.exists()
    assert list((public / "1").iterdir()) == [], "Triton wants the folder of the version"
    assert (public / "configs" / "pytorch.pbtxt").is_file()


def test_lay_out_refuses_when_the_folder_holds_something_else(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("chapter 1")
    with pytest.raises(
        ExportFolderError, match="holds files and is no model repository; name a new"
    ):
        ModelRepository(tmp_path).lay_out()
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]


def accept(repository: ModelRepository, *names: str) -> ExportRecord:
    """Puts a graph of these files into place."""
    with repository.partial("denoiser") as folder:
        for name in names:
            (folder / name).write_text(name)
        files = tuple(ArtefactFile.of(folder / name) for name in names)
        record = ExportRecord(
            "print", 1, 1.0, StageParity(0.0, 1.0, 0.0, "torch", "graph.onnx"), files
        )
        repository.accept("denoiser", folder, record)
    return record


def test_accept_replaces_a_graph_with_all_of_its_files(repository) -> None:
    accept(repository, "model.onnx", "model.onnx.data")
    (repository.folder / LOCK_FILE).write_text("of the whole export before")

    record = accept(repository, "model.plan")

    folder = repository.version_folder("denoiser")
    assert {path.name for path in folder.iterdir()} == {"model.plan", RECORD_FILE}
    assert repository.current_record("denoiser", "model.plan", "print") == record
    assert not (repository.folder / LOCK_FILE).exists()


def test_current_record_is_none_when_a_file_is_short_or_missing(repository) -> None:
    accept(repository, "model.onnx", "model.onnx.data")
    data = repository.version_folder("denoiser") / "model.onnx.data"

    assert repository.current_record("denoiser", "model.onnx", "print") is not None
    assert repository.current_record("denoiser", "model.onnx", "other") is None
    assert repository.current_record("denoiser", "model.plan", "print") is None
    data.write_text("short")
    assert repository.current_record("denoiser", "model.onnx", "print") is None
    data.unlink()
    assert repository.current_record("denoiser", "model.onnx", "print") is None


def test_partial_leaves_nothing_when_it_is_not_accepted(repository) -> None:
    with pytest.raises(KeyError), repository.partial("denoiser") as folder:
        (folder / "model.onnx").write_text("half")
        raise KeyError
    assert not folder.exists()


def test_update_file_says_whether_it_wrote(tmp_path: Path) -> None:
    path = tmp_path / "file"
    assert [update_file(path, content) for content in (b"1", b"1", b"2")] == [True, False, True]
    assert path.read_bytes() == b"2" and list(tmp_path.iterdir()) == [path]


def test_fingerprint_depends_on_content_and_versions(tmp_path: Path) -> None:
    file = tmp_path / "weights"
    file.write_bytes(b"one")
    prints = {
        stage_fingerprint("vae_decoder", StageSource((file,), "settings"), {"torch": "2"}),
        stage_fingerprint("vae_decoder", StageSource((file,), "settings"), {"torch": "3"}),
        stage_fingerprint("denoiser", StageSource((file,), "settings"), {"torch": "2"}),
        stage_fingerprint("vae_decoder", StageSource((file,), "other"), {"torch": "2"}),
    }
    file.write_bytes(b"two")
    prints.add(stage_fingerprint("vae_decoder", StageSource((file,), "settings"), {"torch": "2"}))
    assert len(prints) == 5
