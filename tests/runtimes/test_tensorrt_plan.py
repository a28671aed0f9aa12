"""Running a plan, with a stub of TensorRT and tensors on the CPU in place of a GPU's."""

from __future__ import annotations

from types import ModuleType, SimpleNamespace

import pytest
import torch

from reelserve.runtimes import tensorrt_plan
from reelserve.runtimes.graph_spec import GraphInput, GraphOutput, GraphSpec
from reelserve.runtimes.tensorrt_plan import (
    TensorRTError,
    TensorRTLibrary,
    TensorRTPlan,
    find_library,
)
from tests.export.engines.tensorrt.stub import Engine, StubTensorRT

SPEC = GraphSpec(
    (
        GraphInput("LATENTS", "FP32", (1, 4, 2), (2, 4, 8), (2, 4, 4)),
        GraphInput("ATTENTION_MASK", "INT64", (1, 3), (2, 3), (2, 3)),
    ),
    (GraphOutput("FRAMES", "UINT8", 2),),
)
STREAM = 77


@pytest.fixture
def engine(monkeypatch) -> Engine:
    stream = SimpleNamespace(
        cuda_stream=STREAM, wait_stream=lambda other: None, synchronize=lambda: None
    )
    monkeypatch.setattr(torch.cuda, "set_device", lambda device: None)
    monkeypatch.setattr(torch.cuda, "Stream", lambda device: stream)
    monkeypatch.setattr(torch.cuda, "current_stream", lambda device: None)
    return Engine("denoiser_fp16_sm90_trt10.13.0", SPEC, {"FRAMES": (1, 5)})


@pytest.fixture
def plan(engine, tmp_path) -> TensorRTPlan:
    path = tmp_path / "model.plan"
    path.write_bytes(b"plan")
    return TensorRTPlan(TensorRTLibrary(StubTensorRT(engine=engine)), path, torch.device("cpu"))


def inputs(**changes: torch.Tensor) -> dict[str, torch.Tensor]:
    values = {"LATENTS": torch.zeros(1, 4, 2), "ATTENTION_MASK": torch.ones(1, 3).long()}
    return values | changes


def test_plan_describes_itself(plan):
    assert plan.spec == SPEC
    assert plan.name == "denoiser_fp16_sm90_trt10.13.0"


def test_run_binds_every_tensor_before_it_executes(plan, engine):
    given = inputs()

    outputs = plan.run(given)

    assert outputs["FRAMES"].dtype == torch.uint8
    assert outputs["FRAMES"].shape == (1, 5)
    assert engine.calls == [
        ("shape", "LATENTS", (1, 4, 2)),
        ("shape", "ATTENTION_MASK", (1, 3)),
        ("address", "LATENTS", given["LATENTS"].data_ptr()),
        ("address", "ATTENTION_MASK", given["ATTENTION_MASK"].data_ptr()),
        ("address", "FRAMES", outputs["FRAMES"].data_ptr()),
        ("execute", STREAM),
    ]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"LATENTS": torch.zeros(3, 4, 2)}, r"LATENTS has shape \[3, 4, 2\]; its dimension 0 must"),
        ({"LATENTS": torch.zeros(1, 4, 9)}, r"its dimension 2 must be 2 to 8"),
        ({"LATENTS": torch.zeros(1, 4)}, r"it must have 3 dimensions"),
        (
            {"ATTENTION_MASK": torch.ones(1, 3)},
            r"ATTENTION_MASK is torch.float32; it must be INT64",
        ),
    ],
    ids=["rows", "size", "rank", "dtype"],
)
def test_run_refuses_what_the_plan_does_not_take(plan, engine, changes, message):
    with pytest.raises(ValueError, match=message):
        plan.run(inputs(**changes))
    assert ("execute", STREAM) not in engine.calls


def test_run_refuses_when_an_input_is_missing(plan):
    with pytest.raises(ValueError, match="input ATTENTION_MASK is missing"):
        plan.run({"LATENTS": torch.zeros(1, 4, 2)})


def test_run_raises_with_the_words_of_the_library_when_it_fails(plan, engine):
    engine.succeeds = False
    plan._library.log.log(1, "no kernel\nfor this")

    with pytest.raises(TensorRTError, match=r"trt10\.13\.0 failed: no kernel for this"):
        plan.run(inputs())


def test_plan_is_refused_when_the_library_does_not_take_it(engine, tmp_path):
    path = tmp_path / "model.plan"
    path.write_bytes(b"plan")

    with pytest.raises(TensorRTError, match=r"model.plan: tensorrt 10.13.0 does not take it"):
        TensorRTPlan(TensorRTLibrary(StubTensorRT(loads=False)), path, torch.device("cpu"))


def test_plan_is_refused_when_it_is_missing(engine, tmp_path):
    with pytest.raises(FileNotFoundError, match="export the checkpoint first"):
        TensorRTPlan(TensorRTLibrary(StubTensorRT()), tmp_path / "model.plan", torch.device("cpu"))


def test_find_library_prefers_full_tensorrt(monkeypatch):
    found = {"tensorrt": ModuleType("tensorrt"), "tensorrt_rtx": ModuleType("tensorrt_rtx")}

    found["tensorrt"].__version__ = "10.13.0"

    def import_module(name: str) -> ModuleType:
        if name not in found:
            raise ModuleNotFoundError(name=name)
        return found[name]

    monkeypatch.setattr(tensorrt_plan.importlib, "import_module", import_module)

    assert find_library().name == "tensorrt"
    del found["tensorrt"]
    found["tensorrt_rtx"].__version__ = "1.7.1"
    assert find_library().name == "tensorrt_rtx"
    del found["tensorrt_rtx"]
    with pytest.raises(TensorRTError, match="TensorRT is not installed"):
        find_library()


def test_find_library_says_when_it_does_not_load(monkeypatch):
    def import_module(name: str) -> ModuleType:
        raise ModuleNotFoundError("No module named 'tensorrt_libs'", name="tensorrt_libs")

    monkeypatch.setattr(tensorrt_plan.importlib, "import_module", import_module)

    with pytest.raises(TensorRTError, match="tensorrt does not load: No module named 'tensorrt_l"):
        find_library()
