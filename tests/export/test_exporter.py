import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from tokenizers import Tokenizer

from reelserve.export.engines.onnx import OnnxRuntimeEngine
from reelserve.export.exporter import SPEC_STAGES, Exporter, ExportResult
from reelserve.export.families.bundled import BundledFamily
from reelserve.export.families.layout import Checkpoint
from reelserve.export.fingerprints import fingerprint
from reelserve.export.parity import ENGINE_STAGES, ParityError
from reelserve.export.repository import RECORD_FILE, ModelRepository
from reelserve.export.stages import StageSource
from reelserve.pipeline.checkpoint import CheckpointSpec
from tests.export.conftest import SHORT_CLIP

Exported = tuple[ModelRepository, ExportResult]


class StubEngine(OnnxRuntimeEngine):
    """Writes a note in place of a graph and answers every run with what torch gives."""

    def __init__(self, *, error: float = 0.0) -> None:
        super().__init__()
        self.built: list[str] = []
        self._error = error
        self._modules = {}

    def build(self, stage, path: Path) -> None:
        path.write_text(stage.name)
        self.built.append(stage.name)
        self._modules[stage.name] = stage

    def run(self, path: Path, inputs):
        stage = self._modules[path.read_text()]
        with torch.no_grad():
            out = stage.module(*(torch.from_numpy(value) for value in inputs.values())).numpy()
        return [out + np.array(self._error, out.dtype)]


def test_export_writes_every_stage(exported: Exported) -> None:
    repository, result = exported
    assert result.exported == ENGINE_STAGES
    for stage in ENGINE_STAGES:
        files = {path.name for path in repository.version_folder(stage).iterdir()}
        assert files == {"model.onnx", RECORD_FILE}
    assert result.records["upsampler"].num_parameters == 621_424


def test_export_records_the_errors_against_torch(exported: Exported) -> None:
    _, result = exported
    assert result.frames_psnr_db is not None and result.frames_psnr_db >= 45
    for stage in ("vae_decoder", "frame_consistency", "upsampler"):
        assert result.records[stage].parity.max_abs_error <= 1
    parity = result.records["denoiser"].parity
    assert parity.max_abs_error < 1e-4 * parity.max_abs_value


def test_export_tells_the_python_stages_what_is_served(exported: Exported) -> None:
    repository, _ = exported
    for stage in SPEC_STAGES:
        spec = CheckpointSpec.load(repository.version_folder(stage))
        assert (spec.engine, spec.latents.channels) == ("onnxruntime", 16)
        assert spec.scheduler.shift > 0
    tokenizer = repository.version_folder("prompt_processor") / "tokenizer.json"
    assert "star" in Tokenizer.from_file(str(tokenizer)).encode("a star").tokens


@pytest.fixture
def stub_export(own_checkpoint: Path, tmp_path: Path):
    """Exports the test's own checkpoint with a stub engine; returns what was built."""

    def export(*, force: bool = False, error: float = 0.0) -> list[str]:
        engine = StubEngine(error=error)
        family = BundledFamily(Checkpoint.open(own_checkpoint))
        # Graphs of earlier runs are notes, so the stub must know every stage.
        engine._modules = {name: family.build(name) for name in ENGINE_STAGES}
        repository = ModelRepository(tmp_path / "repository")
        Exporter(family, engine, repository, case=SHORT_CLIP).run(force=force)
        return engine.built

    return export


def test_export_builds_nothing_when_up_to_date(stub_export) -> None:
    assert stub_export() == list(ENGINE_STAGES)
    assert stub_export() == []
    assert stub_export(force=True) == list(ENGINE_STAGES)


def test_export_builds_the_stages_that_are_not_up_to_date(
    stub_export, own_checkpoint: Path, tmp_path: Path
) -> None:
    stub_export()
    (own_checkpoint / "vae" / "notes.txt").write_text("retrained")
    (tmp_path / "repository" / "upsampler" / "1" / "model.onnx").unlink()
    (tmp_path / "repository" / "denoiser" / "1" / RECORD_FILE).write_text("{")
    assert stub_export() == ["denoiser", "vae_decoder", "upsampler"]


@pytest.mark.parametrize("error", [0.5, float("nan")])
def test_export_keeps_the_old_graph_when_parity_fails(
    stub_export, own_checkpoint: Path, tmp_path: Path, error: float
) -> None:
    stub_export()
    folder = tmp_path / "repository" / "denoiser" / "1"
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    (own_checkpoint / "transformer" / "notes.txt").write_text("retrained")
    with pytest.raises(ParityError, match="stage denoiser: the exported graph differs"):
        stub_export(error=error)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before


@pytest.mark.parametrize("component", ["transformer", "vae"])
def test_export_names_the_component_when_it_is_missing(
    own_checkpoint: Path, tmp_path: Path, component: str
) -> None:
    for path in (own_checkpoint / component).iterdir():
        path.unlink()
    exporter = Exporter(
        BundledFamily(Checkpoint.open(own_checkpoint)), StubEngine(), ModelRepository(tmp_path)
    )
    with pytest.raises(FileNotFoundError, match=f"component '{component}' is missing"):
        exporter.run()


def test_fingerprint_depends_on_content_and_versions(tmp_path: Path) -> None:
    file = tmp_path / "weights"
    file.write_bytes(b"one")
    source = StageSource((file,), "settings")
    prints = {fingerprint("vae_decoder", source, {"torch": "2"})}
    prints.add(fingerprint("vae_decoder", source, {"torch": "3"}))
    prints.add(fingerprint("denoiser", source, {"torch": "2"}))
    prints.add(fingerprint("vae_decoder", replace(source, settings="other"), {"torch": "2"}))
    file.write_bytes(b"two")
    prints.add(fingerprint("vae_decoder", source, {"torch": "2"}))
    assert len(prints) == 5


def test_record_is_json_beside_the_graph(exported: Exported) -> None:
    repository, result = exported
    raw = json.loads((repository.version_folder("denoiser") / RECORD_FILE).read_text())
    assert raw["fingerprint"] == result.records["denoiser"].fingerprint
