import os
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest

from reelserve.export import fingerprints
from reelserve.export.exporter import Exporter, ExportResult
from reelserve.export.parity import ENGINE_STAGES
from reelserve.export.repository import ModelRepository
from tests.export import kept_graphs as kept
from tests.export.kept_graphs import kept_build, kept_graphs, own_fingerprint, place
from tests.export.stubs import SHORT_CLIP, StubEngine, StubFamily


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(kept, "EXPORTED", tmp_path / "exported")
    monkeypatch.setattr(kept, "FOLDER", tmp_path / "graphs")
    return tmp_path / "graphs"


@pytest.fixture
def elsewhere() -> Iterator[None]:
    """Files and surroundings are looked at again, in the test and after it."""
    caches = (fingerprints._content, kept.surroundings)
    for cache in caches:
        cache.cache_clear()
    yield
    for cache in caches:
        cache.cache_clear()


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


def test_what_is_exported_to_be_served_is_taken(stub, tmp_path) -> None:
    served = ModelRepository(tmp_path / "exported")
    records = Exporter(stub, StubEngine(), served, case=SHORT_CLIP).run().records
    (stub.folder / "upsampler").write_text("other weights")
    (served.version_folder("denoiser") / "model.py").touch()
    second, built = export(stub, tmp_path / "second")
    assert built == ["upsampler"]
    assert not (tmp_path / "second" / "denoiser" / "1" / "model.py").exists()
    assert second.records["denoiser"] == records["denoiser"]
    assert export(stub, tmp_path / "third", "otherwise")[1] == list(ENGINE_STAGES)


def test_what_is_not_whole_is_built(stub, tmp_path, folder) -> None:
    export(stub, tmp_path / "first")
    for path in folder.glob("*/model.onnx"):
        path.write_text("")
    assert export(stub, tmp_path / "second")[1] == list(ENGINE_STAGES)


def test_nothing_is_kept_outside_the_block(stub, tmp_path, folder) -> None:
    Exporter(stub, StubEngine(), ModelRepository(tmp_path / "first"), case=SHORT_CLIP).run()
    assert not folder.exists()


def built(folder: Path, fingerprint: str = "f", how: str = "") -> bool:
    """Whether a build was called for; the folder holds its file in any case."""
    calls: list[int] = []

    def build() -> None:
        calls.append((folder / "plan").write_text("a plan"))

    folder.mkdir()
    kept_build(folder, fingerprint, how, build)
    assert (folder / "plan").read_text() == "a plan"
    return bool(calls)


def test_build_is_taken_where_its_fingerprint_is_the_same(tmp_path) -> None:
    assert built(tmp_path / "first")
    assert not built(tmp_path / "second")
    assert built(tmp_path / "third", "other")
    assert built(tmp_path / "fourth", how="otherwise")


def test_build_that_fails_is_not_kept(tmp_path, folder) -> None:
    def fails() -> None:
        (tmp_path / "half").write_text("")
        raise ValueError("no kernel")

    with pytest.raises(ValueError, match="no kernel"):
        kept_build(tmp_path, "f", "", fails)
    assert not folder.exists()


@pytest.mark.parametrize(
    "name",
    [
        *("temporal_attention_kernel.py", "denoiser.py", "aot_inductor.py", "graph_spec.py"),
        *("latte.py", "stages.py", "builder.py", "tensorrt_plan.py", "contract.py", "parity.py"),
    ],
)
def test_place_changes_with_a_file_that_shapes_it(elsewhere, monkeypatch, name) -> None:
    before = place(own_fingerprint(__file__), "")
    real = fingerprints.file_sha256
    monkeypatch.setattr(
        fingerprints, "file_sha256", lambda path: real(path) + "x" * (path.name == name)
    )
    fingerprints._content.cache_clear()
    kept.surroundings.cache_clear()
    assert place(own_fingerprint(__file__), "") != before


def test_place_changes_with_the_code_of_the_test() -> None:
    assert own_fingerprint(__file__) != own_fingerprint(kept.__file__)


def test_place_changes_with_a_library(elsewhere, monkeypatch) -> None:
    before = place("f", "")
    newer = [SimpleNamespace(name="diffusers", version="99")]
    monkeypatch.setattr(kept.metadata, "distributions", lambda: newer)
    kept.surroundings.cache_clear()
    assert place("f", "") != before


def test_place_changes_with_the_compiler(elsewhere, monkeypatch, tmp_path) -> None:
    before = place("f", "")
    compiler = tmp_path / "g++"
    compiler.write_text("#!/bin/sh\necho another\n")
    compiler.chmod(0o755)
    monkeypatch.setenv("CXX", str(compiler))
    kept.surroundings.cache_clear()
    assert place("f", "") != before


@pytest.mark.parametrize("capability", [(8, 9), (9, 0)])
def test_place_changes_with_the_gpu(elsewhere, monkeypatch, capability) -> None:
    monkeypatch.setattr(kept.torch.cuda, "is_available", lambda: False)
    without = place("f", "")
    monkeypatch.setattr(kept.torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(kept.torch.cuda, "get_device_capability", lambda: capability)
    kept.surroundings.cache_clear()
    assert place("f", "") != without


def test_what_no_run_has_taken_for_long_goes(tmp_path, folder) -> None:
    for number in range(3):
        built(tmp_path / f"{number}", f"{number}")
    for path in folder.iterdir():
        os.utime(path, (0, 0))
    assert not built(tmp_path / "taken", "1")
    assert built(tmp_path / "new", "3")
    assert set(folder.iterdir()) == {place("1", ""), place("3", "")}
