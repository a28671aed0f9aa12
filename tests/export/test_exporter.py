import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from tokenizers import Tokenizer

from reelserve.export.builds import BuildError
from reelserve.export.engines import EngineError
from reelserve.export.exporter import SPEC_STAGES, Exporter, ExportResult
from reelserve.export.parity import ENGINE_STAGES, ParityError
from reelserve.export.parity_limits import MIN_GRAPH_PSNR_DB
from reelserve.export.repository import RECORD_FILE, ExportFolderError, ModelRepository
from reelserve.export.resources import ResourceError
from reelserve.pipeline.checkpoint import CheckpointSpec
from reelserve.runtimes.export_lock import LOCK_FILE, ExportLock
from reelserve.runtimes.repository_files import PARITY_CLIPS
from reelserve.server.launch.repository_check import check_repository
from tests.export.stubs import SHORT_CLIP, StubEngine, StubFamily, export

pytestmark = pytest.mark.compile

ROOT = Path(__file__).parents[2]
Exported = tuple[ModelRepository, ExportResult]


def test_export_writes_every_stage(exported: Exported) -> None:
    repository, result = exported
    assert tuple(result.records) == ENGINE_STAGES
    for stage in ENGINE_STAGES:
        files = {path.name for path in repository.version_folder(stage).iterdir()}
        assert files == {"model.onnx", RECORD_FILE}
    assert result.records["upsampler"].num_parameters == 1700


def test_export_records_the_errors_against_torch(exported: Exported) -> None:
    _, result = exported
    assert result.frames_psnr_db is not None and result.frames_psnr_db >= MIN_GRAPH_PSNR_DB
    for stage in ("vae_decoder", "frame_consistency", "upsampler"):
        assert result.records[stage].parity.max_abs_error <= 1
    parity = result.records["denoiser"].parity
    assert parity.max_abs_error < 1e-4 * parity.max_abs_value
    assert 0 < parity.relative_error < 1e-4
    assert parity.reference == "torch fp32 on cpu"


def test_export_tells_the_python_stages_what_is_served(exported: Exported) -> None:
    repository, _ = exported
    for stage in SPEC_STAGES:
        spec = CheckpointSpec.load(repository.version_folder(stage))
        assert (spec.engine, spec.latents.channels) == ("onnxruntime", 16)
        assert spec.vocabulary["things"] == ("circle", "rabbit")
        assert spec.scheduler.shift > 0
    tokenizer = repository.version_folder("prompt_processor") / "tokenizer.json"
    assert "▁star" in Tokenizer.from_file(str(tokenizer)).encode("a star").tokens


def test_export_ends_with_a_lock_that_the_server_takes(exported: Exported) -> None:
    repository, result = exported
    lock = check_repository(repository.folder, verify=True)
    assert (lock.family, lock.engine, lock.precision) == ("bundled", "onnxruntime", "fp32")
    assert len(lock.checkpoint_sha256) == 64
    for stage, record in result.records.items():
        assert lock.stages[stage].files == record.files
        assert lock.stages[stage].fingerprint == record.fingerprint


@pytest.fixture
def stub(tmp_path: Path) -> StubFamily:
    return StubFamily.write(tmp_path / "checkpoint")


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    return tmp_path / "repository"


@pytest.fixture
def stub_export(stub: StubFamily, repository: Path):
    """Exports the stub family with a stub engine; returns what was built."""

    def run(*, force: bool = False, jobs: int = 1, **engine) -> list[str]:
        made = StubEngine(**engine)
        stub.loaded.clear()
        folder = ModelRepository(repository)
        Exporter(stub, made, folder, case=SHORT_CLIP, jobs=jobs).run(force=force)
        return made.built

    return run


def test_export_builds_nothing_when_up_to_date(stub_export, stub) -> None:
    assert stub_export() == list(ENGINE_STAGES)
    assert stub_export() == []
    assert stub.loaded == []
    assert stub_export(force=True) == list(ENGINE_STAGES)


def test_export_builds_the_stages_that_are_not_up_to_date(
    stub_export, stub, repository: Path
) -> None:
    stub_export()
    (stub.folder / "vae_decoder").write_text("retrained")
    (repository / "upsampler" / "1" / "model.onnx").unlink()
    (repository / "denoiser" / "1" / RECORD_FILE).write_text("{")
    assert stub_export() == ["denoiser", "vae_decoder", "upsampler"]


def test_export_goes_on_with_the_stage_that_failed(stub_export, stub, repository: Path) -> None:
    with pytest.raises(BuildError, match="stage vae_decoder: RuntimeError: no kernel for Frob"):
        stub_export(fails_at="vae_decoder")
    assert not (repository / LOCK_FILE).exists()
    assert not list((repository / "vae_decoder" / "1").iterdir())

    rest = ["vae_decoder", "frame_consistency", "upsampler"]
    assert stub_export() == rest
    assert stub.loaded == rest, "what has passed is not loaded again"
    assert ExportLock.load(repository) is not None
    assert not list(repository.rglob(PARITY_CLIPS))


def test_export_loads_what_has_passed_when_its_results_are_lost(
    stub_export, stub, repository: Path
) -> None:
    with pytest.raises(BuildError):
        stub_export(fails_at="vae_decoder")
    for stage, damage in (("text_encoder", b""), ("denoiser", b"PK no archive")):
        (repository / stage / "1" / PARITY_CLIPS).write_bytes(damage)

    assert stub_export() == ["vae_decoder", "frame_consistency", "upsampler"]
    assert stub.loaded == list(ENGINE_STAGES)


def test_export_goes_on_after_it_was_killed(stub: StubFamily, repository: Path) -> None:
    waiting = repository / "vae_decoder" / "1" / "graph.partial" / "model.onnx"
    code = (
        "import pathlib, sys; from tests.export.stubs import export; "
        "export(pathlib.Path(sys.argv[1]), pathlib.Path(sys.argv[2]), waits_at='vae_decoder')"
    )
    command = [sys.executable, "-c", code, str(stub.folder), str(repository)]
    with subprocess.Popen(command, cwd=ROOT) as process:
        deadline = time.monotonic() + 120
        while not waiting.exists() and process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.05)
        process.send_signal(signal.SIGKILL)
    assert waiting.exists() and not (repository / LOCK_FILE).exists()

    rest = ["vae_decoder", "frame_consistency", "upsampler"]
    assert export(stub.folder, repository) == rest
    assert not waiting.parent.exists()
    check_repository(repository, verify=True)


@pytest.mark.parametrize("error", [0.5, float("nan")])
def test_export_keeps_the_old_graph_when_parity_fails(
    stub_export, stub, repository: Path, error: float
) -> None:
    stub_export()
    folder = repository / "denoiser" / "1"
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    (stub.folder / "denoiser").write_text("retrained")
    with pytest.raises(ParityError, match="stage denoiser: the exported graph differs"):
        stub_export(error=error)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before
    check_repository(repository, verify=True)


def test_export_refuses_the_clip_again_when_it_was_refused(
    stub_export, repository: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every graph has passed by then, and still nothing may be served."""
    monkeypatch.setattr("reelserve.export.parity.MIN_GRAPH_PSNR_DB", float("inf"))
    monkeypatch.setattr("reelserve.export.exporter.psnr", lambda clip, reference: 44.0)
    for _ in range(2):
        with pytest.raises(ParityError, match=r"exported graphs have 44\.0 dB"):
            stub_export()
        assert not (repository / LOCK_FILE).exists()


def test_export_builds_in_child_processes_when_there_are_jobs(
    stub_export, repository: Path
) -> None:
    stub_export()
    for stage in ("denoiser", "upsampler"):
        (repository / stage / "1" / "model.onnx").unlink()
    assert stub_export(jobs=2) == [], "none in this process"
    check_repository(repository, verify=True)
    assert (repository / "upsampler" / "1" / "model.onnx").read_text() == "upsampler"


@pytest.mark.parametrize(
    ("engine", "message"),
    [
        ({"fails_at": "denoiser"}, "stage denoiser: RuntimeError: no kernel for Frobnicate"),
        ({"dies_at": "denoiser"}, "stage denoiser: the process .* died with status -9; .*--jobs"),
    ],
    ids=["fails", "dies"],
)
def test_export_names_the_stage_when_a_child_process_fails(
    stub_export, repository: Path, engine, message
) -> None:
    stub_export()
    (repository / "denoiser" / "1" / "model.onnx").unlink()
    with pytest.raises(BuildError, match=message):
        stub_export(jobs=2, **engine)


def test_export_names_the_component_when_it_is_missing(stub_export, stub) -> None:
    (stub.folder / "vae_decoder").unlink()
    with pytest.raises(FileNotFoundError, match="component 'vae_decoder' is missing"):
        stub_export()


def test_export_refuses_a_precision_before_anything_is_read(stub, repository: Path) -> None:
    exporter = Exporter(stub, StubEngine(), ModelRepository(repository), precision="bf16")
    with pytest.raises(EngineError, match="precision is bf16; engine onnxruntime has fp32, fp16"):
        exporter.run()
    assert not repository.exists()


def test_export_asks_the_engine_before_anything_is_read(stub, repository: Path) -> None:
    engine = StubEngine()
    engine.provider = "NoExecutionProvider"
    with pytest.raises(EngineError, match="this onnxruntime has no NoExecutionProvider"):
        Exporter(stub, engine, ModelRepository(repository)).run()
    assert not repository.exists()


def test_export_refuses_before_loading_when_memory_is_short(
    family, repository: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("reelserve.export.resources.available_memory", lambda: 10_000_000)
    monkeypatch.setattr(type(family), "build", None)
    with pytest.raises(ResourceError, match=r"text_encoder in fp32: memory: about 0\.1 GB"):
        Exporter(family, StubEngine(), ModelRepository(repository)).run()


def test_export_refuses_when_another_one_runs(stub_export, repository: Path) -> None:
    with (
        ModelRepository(repository).exclusive(),
        pytest.raises(ExportFolderError, match=r"another export into .* is running"),
    ):
        stub_export()
    assert stub_export() == list(ENGINE_STAGES)


def test_export_makes_another_graph_for_another_engine_or_precision(stub, repository) -> None:
    """What they share, the name of the file, says nothing."""
    other = StubEngine()
    other.name = "onnxruntime-other"
    for engine, precision in ((StubEngine(), "fp32"), (other, "fp32"), (other, "fp16")):
        folder = ModelRepository(repository)
        exporter = Exporter(stub, engine, folder, case=SHORT_CLIP, precision=precision)
        assert exporter.run().exported == ENGINE_STAGES


def test_export_keeps_named_stages_in_fp32(stub, repository: Path) -> None:
    def run(*fp32_stages: str) -> ExportResult:
        folder = ModelRepository(repository)
        engine = StubEngine(runs_in="fp16")
        exporter = Exporter(
            stub,
            engine,
            folder,
            case=SHORT_CLIP,
            precision="fp16",
            fp32_stages=fp32_stages,
        )
        return exporter.run()

    run()
    kept = run("upsampler")

    assert kept.exported == ("upsampler",)
    references = {name: record.parity.reference for name, record in kept.records.items()}
    assert references.pop("upsampler") == "torch fp32 on cpu"
    assert set(references.values()) == {"torch fp16 on cpu"}
    with pytest.raises(ValueError, match="fp32 stages are unet; they must be some of text_encoder"):
        run("unet")


def test_record_is_json_beside_the_graph(exported: Exported) -> None:
    repository, result = exported
    raw = json.loads((repository.version_folder("denoiser") / RECORD_FILE).read_text())
    assert raw["fingerprint"] == result.records["denoiser"].fingerprint
    assert raw["files"][0]["name"] == "model.onnx"
