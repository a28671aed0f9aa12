"""The engine with full TensorRT, which needs a GPU: a stub stands in for it."""

from __future__ import annotations

import sys

import pytest
import torch

from reelserve.export.engines import EngineError
from reelserve.export.engines.tensorrt import engine as tensorrt
from reelserve.export.engines.tensorrt.engine import GRAPH_FILE, TensorRTEngine
from reelserve.export.families.diffusers_components import Unchanged
from reelserve.export.stages import DenoiserStage, DimRange, ExportStage, Target
from reelserve.models.denoiser import DenoiserConfig, SpaceTimeDenoiser
from tests.export.engines.tensorrt.stub import FOREIGN_TIMES, Engine, StubTensorRT
from tests.export.engines.tensorrt.traced import kept_write_graph

pytestmark = pytest.mark.compile

NUM_BLOCKS = 1


@pytest.fixture
def stub(monkeypatch) -> StubTensorRT:
    """Full TensorRT on a machine with a GPU."""
    stub = StubTensorRT()
    install(monkeypatch, stub)
    return stub


@pytest.fixture(autouse=True)
def _traces_once(monkeypatch) -> None:
    monkeypatch.setattr(tensorrt, "write_graph", kept_write_graph(__file__))


def install(monkeypatch, stub: StubTensorRT) -> None:
    monkeypatch.setitem(sys.modules, "tensorrt", stub)
    monkeypatch.setattr(tensorrt, "gpu_capability", lambda: "SM90")
    # Importable only where TensorRT's own plugin package is.
    monkeypatch.setattr(tensorrt, "PLUGIN_MODULE", "json")


def frames_stage() -> ExportStage:
    return ExportStage("frame_consistency", Unchanged(), (torch.zeros(2, 2, 8, 8, 3).byte(),))


def denoiser_stage(frames: DimRange) -> ExportStage:
    """A denoiser whose heads are of a width that the op takes."""
    torch.manual_seed(0)
    config = DenoiserConfig(
        16, 32, width=128, num_heads=2, num_blocks=NUM_BLOCKS, num_refiner_blocks=1
    )
    inputs = (
        torch.randn(2, 16, 4, 8, 8),
        torch.full((2, 1), 500.0),
        torch.randn(2, 16, 32),
        torch.ones(2, 16, dtype=torch.int64),
    )
    module = DenoiserStage(SpaceTimeDenoiser(config).eval())
    return ExportStage("denoiser", module, inputs, {"LATENTS": {2: "frames"}}, {"frames": frames})


def test_check_refuses_when_there_is_no_gpu(stub, monkeypatch):
    monkeypatch.setattr(tensorrt, "gpu_capability", lambda: None)

    with pytest.raises(EngineError, match="tensorrt builds for the GPU at hand, and torch sees"):
        TensorRTEngine().check("fp16")


def test_plan_is_bound_to_the_gpu_at_hand(stub, tmp_path):
    engine = TensorRTEngine(cache_folder=tmp_path / "cache")
    engine.check("fp16")

    report = engine.report(frames_stage(), tmp_path / "model.plan")

    assert engine.architecture() == "sm_90"
    assert engine.versions()["tensorrt"] == "10.13.0"
    assert engine.bound_versions() == {"tensorrt": "10.13.0"}
    assert engine.target("fp16").device == "cuda"
    assert report.name == "frame_consistency_fp32_sm90_trt10.13.0"
    assert report.loaded
    assert engine.checked_file() == "model.plan"
    assert not (tmp_path / GRAPH_FILE).exists()


def test_timing_cache_is_reused_by_the_same_version(stub, tmp_path, monkeypatch):
    engine = TensorRTEngine(cache_folder=tmp_path / "cache")
    for _ in range(2):
        engine.build(frames_stage(), tmp_path / "model.plan")
    newer = StubTensorRT("10.14.0")
    install(monkeypatch, newer)
    engine.build(frames_stage(), tmp_path / "model.plan")

    assert stub.caches == [b"", b"timed;"]
    assert newer.caches == [b""]
    assert sorted(path.name for path in (tmp_path / "cache").iterdir()) == [
        "tensorrt_10.13.0.timing_cache",
        "tensorrt_10.14.0.timing_cache",
    ]


def test_timing_cache_keeps_what_a_build_beside_it_has_written(stub, tmp_path, monkeypatch):
    engine = TensorRTEngine(cache_folder=tmp_path)
    file = engine.builder().cache_file
    build = stub.build_serialized_network

    def build_beside_another(network, config):
        file.write_bytes(b"another;")
        return build(network, config)

    monkeypatch.setattr(stub, "build_serialized_network", build_beside_another)
    engine.build(frames_stage(), tmp_path / "model.plan")

    assert file.read_bytes() == b"timed;another;"


def test_timing_cache_of_another_gpu_makes_way_for_a_new_one(stub, tmp_path):
    engine = TensorRTEngine(cache_folder=tmp_path)
    file = engine.builder().cache_file
    file.write_bytes(FOREIGN_TIMES)

    engine.build(frames_stage(), tmp_path / "model.plan")

    assert stub.caches == [FOREIGN_TIMES, b""]
    assert file.read_bytes().startswith(b"timed;")


def test_timing_cache_that_cannot_be_kept_fails_no_build(stub, tmp_path):
    (tmp_path / "cache").write_text("a file where the folder should be")
    TensorRTEngine(cache_folder=tmp_path / "cache").build(frames_stage(), tmp_path / "model.plan")
    (tmp_path / "cache").unlink()
    engine = TensorRTEngine(cache_folder=tmp_path / "cache")
    engine.builder().cache_file.parent.mkdir()
    engine.builder().cache_file.write_bytes(b"known;")
    engine.builder().cache_file.chmod(0o444)

    engine.build(frames_stage(), tmp_path / "other.plan")

    assert (tmp_path / "model.plan").is_file() and (tmp_path / "other.plan").is_file()
    assert engine.builder().cache_file.read_bytes() == b"known;"


def test_temporal_attention_is_the_plugin_when_shapes_are_fixed(stub, tmp_path):
    report = TensorRTEngine(cache_folder=tmp_path / "cache").report(
        denoiser_stage(DimRange(4, 4, 4)), tmp_path / "model.plan"
    )

    assert report.num_plugins == NUM_BLOCKS


def test_temporal_attention_is_standard_operators_when_frames_vary(stub, tmp_path):
    report = TensorRTEngine(cache_folder=tmp_path / "cache").report(
        denoiser_stage(DimRange(4, 8, 4)), tmp_path / "model.plan"
    )

    assert report.num_plugins == 0


def test_build_refuses_when_the_plugin_is_not_in_the_network(tmp_path, monkeypatch):
    install(monkeypatch, StubTensorRT(has_plugin=False))
    engine = TensorRTEngine(cache_folder=tmp_path / "cache")

    with pytest.raises(EngineError, match=r"has 0 layers of the plugin .*; it must have 1"):
        engine.build(denoiser_stage(DimRange(4, 4, 4)), tmp_path / "model.plan")


def test_build_refuses_when_the_plan_does_not_load(tmp_path, monkeypatch):
    install(monkeypatch, StubTensorRT(loads=False))
    engine = TensorRTEngine(cache_folder=tmp_path / "cache")

    with pytest.raises(EngineError, match="the plan that was built does not load: it says nothing"):
        engine.build(frames_stage(), tmp_path / "model.plan")


@pytest.fixture
def older(monkeypatch) -> StubTensorRT:
    """Full TensorRT 8.6 on a machine with a GPU."""
    older = StubTensorRT("8.6.0")
    install(monkeypatch, older)
    return older


def test_older_library_refuses_bf16_and_names_what_it_has(older):
    message = "precision is bf16; engine tensorrt with tensorrt 8.6.0 has fp16, fp32"
    with pytest.raises(EngineError, match=message):
        TensorRTEngine().check("bf16")
    TensorRTEngine().check("fp16")


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_older_library_gets_a_graph_in_fp32_and_a_flag(older, tmp_path, precision):
    stage = denoiser_stage(DimRange(4, 4, 4))
    Target(precision).place(stage.module)
    engine = TensorRTEngine(cache_folder=tmp_path / "cache")

    report = engine.report(stage, tmp_path / "model.plan")

    assert report.name == f"denoiser_{precision}_sm90_trt8.6.0"
    assert report.num_plugins == 0
    assert engine.versions()["opset"] == "17"
    assert {one.dtype for one in report.spec.inputs} == {"FP32", "INT64"}
    assert ("clear", "TF32") in older.asked and ("tactics", 0) in older.asked
    flags = {what for how, what in older.asked if how == "set"}
    wide = [layer for layer in older.network.layers if layer.precision is not None]
    half = precision == "fp16"
    assert flags == ({"FP16", "PREFER_PRECISION_CONSTRAINTS"} if half else set())
    # The norms square and average; products and softmax are left to the library.
    assert {layer.type.name for layer in wide} == ({"ELEMENTWISE", "REDUCE"} if half else set())
    assert {layer.op.name for layer in wide} <= {"POW", "AVG"}
    assert all(layer.output_types == [(0, "FLOAT")] for layer in wide)
    # The stage keeps its own weights: it is compared with the plan after the build.
    assert {weight.dtype for weight in stage.module.parameters()} == {Target(precision).dtype}


def test_build_refuses_when_the_plan_has_another_name(stub, tmp_path, monkeypatch):
    other = Engine("another", TensorRTEngine().plan_spec(frames_stage()), {})
    monkeypatch.setattr(stub, "engine", other)
    engine = TensorRTEngine(cache_folder=tmp_path / "cache")

    with pytest.raises(EngineError, match="its name is 'another' and must be 'frame_consistency_"):
        engine.build(frames_stage(), tmp_path / "model.plan")
