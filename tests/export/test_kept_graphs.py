from pathlib import Path

import pytest

from reelserve.export.exporter import Exporter, ExportResult
from reelserve.export.parity import ENGINE_STAGES
from reelserve.export.repository import ModelRepository
from tests.export import kept_graphs as kept
from tests.export.kept_graphs import kept_graphs
from tests.export.stubs import SHORT_CLIP, StubEngine, StubFamily


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(kept, "FOLDER", tmp_path / "graphs")
    return tmp_path / "graphs"


@pytest.fixture
def stub(tmp_path: Path) -> StubFamily:
    return StubFamily.write(tmp_path / "checkpoint")


def export(stub: StubFamily, repository: Path, how: str = "") -> tuple[ExportResult, list[str]]:
    engine = StubEngine()
    with kept_graphs(how):
        result = Exporter(stub, engine, ModelRepository(repository), case=SHORT_CLIP).run()
    return result, engine.built


def test_another_repository_takes_what_is_kept(stub, tmp_path, folder) -> None:
    first, built = export(stub, tmp_path / "first")
    assert built == list(ENGINE_STAGES)
    second, built = export(stub, tmp_path / "second")
    assert built == [] and second.records == first.records
    assert second.frames_psnr_db == first.frames_psnr_db is not None
    assert len(list(folder.iterdir())) == len(ENGINE_STAGES)


def test_what_has_changed_is_built(stub, tmp_path) -> None:
    export(stub, tmp_path / "first")
    (stub.folder / "denoiser").write_text("other weights")
    assert export(stub, tmp_path / "second")[1] == ["denoiser"]
    assert export(stub, tmp_path / "third", "otherwise")[1] == list(ENGINE_STAGES)


def test_what_is_not_whole_is_built(stub, tmp_path, folder) -> None:
    export(stub, tmp_path / "first")
    for path in folder.glob("*/model.onnx"):
        path.write_text("")
    assert export(stub, tmp_path / "second")[1] == list(ENGINE_STAGES)


def test_nothing_is_kept_outside_the_block(stub, tmp_path, folder) -> None:
    Exporter(stub, StubEngine(), ModelRepository(tmp_path / "first"), case=SHORT_CLIP).run()
    assert not folder.exists()
