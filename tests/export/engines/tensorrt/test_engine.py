"""TensorRT plans, really built without a GPU: every engine stage of every family, for sm_80 and
sm_89 at once, the bundled checkpoint with its real weights, its denoiser with the first blocks
alone. No plan is run."""

from __future__ import annotations

import inspect
import pickle
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

import numpy as np
import onnx_ir
import pytest
import torch
from torch import nn

from reelserve.export.engines import EngineError
from reelserve.export.engines.tensorrt import engine as tensorrt
from reelserve.export.engines.tensorrt.builder import PlanReport
from reelserve.export.engines.tensorrt.engine import (
    GRAPH_FILE,
    MAX_BATCH,
    TensorRTEngine,
)
from reelserve.export.families import CheckpointFamily, family_of
from reelserve.export.families.diffusers_components import Unchanged
from reelserve.export.families.layout import Checkpoint
from reelserve.export.fingerprints import graph_fingerprint
from reelserve.export.parity import ENGINE_STAGES, StageRun, compare_stage, require_parity
from reelserve.export.stages import DenoiserStage, ExportStage, Precision, Target
from reelserve.models.denoiser import DenoiserConfig, SpaceTimeDenoiser
from reelserve.pipeline.contract import ANY, STAGES
from reelserve.runtimes import tensorrt_plan
from reelserve.tools import tiny_checkpoints as tiny
from tests.export.conftest import shallow, write_shallow_bundled
from tests.export.engines.tensorrt.traced import kept_write_graph
from tests.export.kept_graphs import kept_build

pytestmark = pytest.mark.compile

pytest.importorskip(
    "tensorrt_rtx_bindings", reason="TensorRT-RTX is not installed: pip install '.[tensorrt]'"
)

FAMILIES: dict[str, Precision] = {"bundled": "bf16", "ltx": "fp16", "latte": "fp32"}
"""Each at a precision of its own, so that all are built."""
SHORT = {"num_frames": {"low": 4, "high": 240, "default": 80}}
"""A clip of one latent frame: on a CPU torch takes seconds for each frame in bf16."""
LTX_LIMITS = {**tiny.LTX_PROFILE, "height": {"low": 64, "high": 64, "default": 64}}
"""Two sizes that vary, one in time and one in space: tracing is slow with each of them."""
CASES = [
    *(("bundled", stage) for stage in ENGINE_STAGES),
    *(("ltx", stage) for stage in ENGINE_STAGES),
    # Its other stages are the classes of LTX-Video's.
    *(("latte", stage) for stage in ("denoiser", "vae_decoder")),
]
IDS = [f"{family}-{stage}" for family, stage in CASES]


@dataclass(frozen=True)
class Built:
    stage: ExportStage
    plan: Path
    report: PlanReport
    engine: TensorRTEngine
    precision: Precision


@pytest.fixture(scope="session")
def built_once(tmp_path_factory):
    """Builds a stage when it is first asked for."""

    @cache
    def family(name: str) -> CheckpointFamily:
        folder = tmp_path_factory.mktemp(name) / "checkpoint"
        if name == "bundled":
            return family_of(Checkpoint.open(write_shallow_bundled(folder)), SHORT)
        pytest.importorskip("diffusers", reason="needs pip install '.[families]'")
        if name == "ltx":
            return family_of(Checkpoint.open(tiny.write_tiny_ltx(folder)), LTX_LIMITS)
        return family_of(Checkpoint.open(tiny.write_tiny_latte(folder)))

    @cache
    def build(name: str, stage_name: str) -> Built:
        engine, precision = TensorRTEngine(("SM80", "SM89")), FAMILIES[name]
        stage = shallow(family(name).build(stage_name, Target(precision)))
        plan = tmp_path_factory.mktemp(f"{name}_{stage_name}") / engine.file_name
        report = plan.with_name("report.pickle")
        kept_build(
            plan.parent,
            graph_fingerprint(family(name), engine, stage_name, precision),
            inspect.getsource(shallow),
            lambda: report.write_bytes(pickle.dumps(engine.report(stage, plan))),
        )
        return Built(stage, plan, pickle.loads(report.read_bytes()), engine, precision)

    return build


@pytest.fixture
def built(built_once, request) -> Built:
    return built_once(*request.param)


every_stage = pytest.mark.parametrize("built", CASES, ids=IDS, indirect=True)


@every_stage
def test_plan_has_the_tensors_of_the_contract(built):
    contract = STAGES[built.stage.name]
    for found, expected in (
        (built.report.spec.inputs, contract.inputs),
        (built.report.spec.outputs, contract.outputs),
    ):
        assert [(t.name, t.dtype) for t in found] == [(t.name, t.dtype) for t in expected]
    for found, expected in zip(built.report.spec.inputs, contract.inputs, strict=True):
        for shape in (found.low, found.usual, found.high):
            assert all(
                dim in (ANY, size) for dim, size in zip(expected.dims, shape[1:], strict=True)
            )


@every_stage
def test_plan_takes_the_shapes_within_the_limits(built):
    rows = MAX_BATCH.get(built.stage.name, 1)
    for found in built.report.spec.inputs:
        assert (found.low[0], found.usual[0], found.high[0]) == (1, rows, rows)
        free = built.stage.free_dims.get(found.name, {})
        for axis, size in enumerate(built.stage.inputs_at(1)[0].shape):
            if found.name != built.stage.contract.inputs[0].name or axis == 0:
                continue
            range_ = built.stage.ranges.get(free.get(axis, ""))
            wanted = (range_.low, range_.usual, range_.high) if range_ else (size, size, size)
            assert (found.low[axis], found.usual[axis], found.high[axis]) == wanted


@every_stage
def test_plan_is_whole_and_for_both_gpus(built):
    report = built.report
    # What has no weights is in fp32, and so is our text encoder.
    wide = all(one.dtype == torch.float32 for one in built.stage.module.parameters())
    precision = "fp32" if wide else built.precision
    library = tensorrt_plan.find_library()
    assert report.name == f"{built.stage.name}_{precision}_sm80+sm89_rtx{library.version}"
    assert report.name.encode() in built.plan.read_bytes()
    assert report.architectures == ("sm80", "sm89")
    # There is no GPU to load it on, and the edition for RTX GPUs has no plugins.
    assert not report.loaded and report.num_plugins == 0
    assert report.num_layers >= 2 + sum(1 for _ in built.stage.module.parameters()) // 2
    weights = sum(p.numel() * p.element_size() for p in built.stage.module.parameters())
    assert built.plan.stat().st_size > 0.9 * weights


@every_stage
def test_graph_of_the_plan_agrees_with_torch(built):
    """The gate of an export where the plan cannot run."""
    names = [tensor.name for tensor in built.stage.contract.inputs]
    sizes = {name: range_.low for name, range_ in built.stage.ranges.items()}
    inputs = built.stage.inputs_at(1, sizes)
    arrays = tuple(tensor.numpy() for tensor in inputs)
    with torch.no_grad():
        expected = built.stage.module(*inputs).numpy()

    def run(*values: np.ndarray) -> np.ndarray:
        return built.engine.run(built.plan, dict(zip(names, values, strict=True)))[0]

    checked = built.engine.checked_file()
    parity = compare_stage(StageRun(arrays, expected, expected), run, "torch", checked)
    built.engine.release()
    require_parity(built.stage.name, parity, built.precision)
    assert parity.checked == GRAPH_FILE


def test_dimensions_of_one_size_are_constants_of_the_graph(built_once):
    latte = onnx_ir.load(built_once("latte", "denoiser").plan.with_name(GRAPH_FILE))
    bundled = onnx_ir.load(built_once("bundled", "frame_consistency").plan.with_name(GRAPH_FILE))

    assert [dim for dim in latte.graph.inputs[0].shape][1:] == [4, 5, 8, 8]
    assert [dim for dim in bundled.graph.inputs[0].shape][2:] == [64, 64, 3]
    assert not isinstance(bundled.graph.inputs[0].shape[1], int)


def test_shapes_beyond_the_limits_are_refused_by_name(built_once):
    spec = built_once("bundled", "frame_consistency").report.spec

    spec.check({"FRAMES": (1, 240, 64, 64, 3)})
    with pytest.raises(ValueError, match=r"FRAMES has shape .*; its dimension 1 must be 4 to 240"):
        spec.check({"FRAMES": (1, 244, 64, 64, 3)})


def test_engine_says_what_its_plans_are_bound_to():
    engine = TensorRTEngine(("SM80", "SM89"))
    version = tensorrt_plan.find_library().version

    assert engine.architecture() == "sm_80+sm_89"
    assert engine.bound_versions() == {"tensorrt_rtx_cu13_bindings": version}
    assert engine.versions()["tensorrt_rtx"] == version
    assert pickle.loads(pickle.dumps(engine)).architecture() == engine.architecture()


@pytest.mark.parametrize(
    ("gpu", "architecture", "checked"),
    [("SM89", "sm_89", "model.plan"), ("SM90", "sm_80+sm_89", GRAPH_FILE)],
)
def test_engine_builds_for_the_gpu_at_hand_where_plans_run(monkeypatch, gpu, architecture, checked):
    monkeypatch.setattr(tensorrt, "gpu_capability", lambda: gpu)

    assert TensorRTEngine().architecture() == architecture
    assert TensorRTEngine().checked_file() == checked
    # A plan for another GPU than the one at hand cannot run either.
    assert TensorRTEngine(("SM120",)).checked_file() == GRAPH_FILE


def test_check_refuses_when_no_library_is_installed(monkeypatch):
    monkeypatch.setattr(tensorrt_plan, "MODULES", ("no_tensorrt", "no_tensorrt_rtx"))

    with pytest.raises(EngineError, match=r"TensorRT is not installed: .*reelserve\[tensorrt\]"):
        TensorRTEngine().check("fp32")


@pytest.mark.parametrize(
    ("capabilities", "precision", "message"),
    [
        (
            ("SM89",),
            "fp8",
            r"precision is fp8; engine tensorrt with .* has bf16, fp16, fp32",
        ),
        (("SM75",), "bf16", "precision is bf16; GPUs of sm_75 have none"),
        (("SM90",), "fp16", "compute capability is SM90; tensorrt_rtx .* has .*SM89"),
    ],
    ids=["fp8", "bf16-sm75", "sm90"],
)
def test_check_refuses_what_cannot_be_built(capabilities, precision, message):
    with pytest.raises(EngineError, match=message):
        TensorRTEngine(capabilities).check(precision)


def test_fused_attention_with_a_mask_builds_in_fp16(tmp_path, monkeypatch):
    """TensorRT-RTX fails inside where a mask has one row for all queries."""
    monkeypatch.setattr(tensorrt, "write_graph", kept_write_graph(__file__))
    torch.manual_seed(0)
    config = DenoiserConfig(16, 32, width=128, num_heads=2, num_blocks=1, num_refiner_blocks=1)
    denoiser = SpaceTimeDenoiser(config).eval()
    inputs = (
        torch.randn(2, 16, 4, 8, 8),
        torch.full((2, 1), 500.0),
        torch.randn(2, 64, 32),
        torch.ones(2, 64, dtype=torch.int64),
    )
    stage = ExportStage(
        "denoiser",
        DenoiserStage(Target("fp16").place(denoiser)),
        inputs,
    )

    report = TensorRTEngine(("SM89",)).report(stage, tmp_path / "model.plan")

    assert report.name.startswith("denoiser_fp16_sm89_")


class Doubled(nn.Module):
    """Computes on frames as they are."""

    def forward(self, frames: torch.Tensor) -> torch.Tensor:
        return frames * 2


class Sorted(nn.Module):
    """More values than a TopK layer of TensorRT takes."""

    def forward(self, frames: torch.Tensor) -> torch.Tensor:
        rows = frames.float().flatten(1)
        return rows.sort(1).values.reshape(frames.shape).to(torch.uint8)


def frames_stage(module: nn.Module) -> ExportStage:
    return ExportStage("frame_consistency", module, (torch.zeros(2, 2, 32, 32, 3).byte(),))


@pytest.mark.parametrize(
    ("module", "message"),
    [
        (Doubled(), r"operator Mul .* computes on UINT8"),
        (Sorted(), r"frame_consistency_fp32_.*TopK.*3840"),
    ],
    ids=["uint8", "sort"],
)
def test_build_refuses_what_tensorrt_cannot(module, message, tmp_path):
    with pytest.raises(EngineError, match=message):
        TensorRTEngine(("SM89",)).build(frames_stage(module), tmp_path / "model.plan")


def test_build_refuses_when_the_plan_is_not_what_was_asked_for(tmp_path, monkeypatch):
    stage = frames_stage(Unchanged())
    other = TensorRTEngine(("SM89",)).plan_spec(replace(stage, name="upsampler"))
    monkeypatch.setattr(TensorRTEngine, "plan_spec", lambda engine, stage: other)

    with pytest.raises(EngineError, match=r"outputs have None and must have .*UPSAMPLED_FRAMES"):
        TensorRTEngine(("SM89",)).build(stage, tmp_path / "model.plan")
