"""Running a plan, with a stub of TensorRT and tensors on the CPU in place of a GPU's."""

from __future__ import annotations

import contextlib
from dataclasses import replace
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest
import torch

from reelserve.runtimes import tensorrt_plan
from reelserve.runtimes.graph_spec import GraphInput, GraphOutput, GraphSpec
from reelserve.runtimes.tensorrt_plan import (
    ANY_ROWS,
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


class Graph:
    """A CUDA graph: notes its replays."""

    def __init__(self) -> None:
        self.replays, self.effect = 0, lambda: None

    def replay(self) -> None:
        self.replays += 1
        self.effect()


@contextlib.contextmanager
def recording(graph: Graph, *, stream: object, capture_error_mode: str):
    yield


@pytest.fixture
def graphs(monkeypatch) -> list[Graph]:
    made: list[Graph] = []

    def make() -> Graph:
        made.append(Graph())
        return made[-1]

    monkeypatch.setattr(torch.cuda, "CUDAGraph", make)
    monkeypatch.setattr(torch.cuda, "graph", recording)
    monkeypatch.setattr(torch.cuda, "stream", lambda stream: contextlib.nullcontext())
    return made


@pytest.fixture
def engine(monkeypatch) -> Engine:
    stream = SimpleNamespace(
        cuda_stream=STREAM, wait_stream=lambda other: None, synchronize=lambda: None
    )
    monkeypatch.setattr(torch.cuda, "set_device", lambda device: None)
    monkeypatch.setattr(torch.cuda, "Stream", lambda device: stream)
    monkeypatch.setattr(torch.cuda, "current_stream", lambda device: stream)
    return Engine("denoiser_fp16_sm90_trt10.13.0", SPEC, {"FRAMES": (1, 5)})


@pytest.fixture
def plan(engine, tmp_path) -> TensorRTPlan:
    return opened(engine, tmp_path)


def opened(
    engine: Engine, folder: Path, *, version: str = "10.13.0", cuda_graph: bool = False
) -> TensorRTPlan:
    path = folder / "model.plan"
    path.write_bytes(b"plan")
    library = TensorRTLibrary(StubTensorRT(version, engine=engine))
    return TensorRTPlan(library, path, torch.device("cpu"), cuda_graph=cuda_graph)


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


def usual(value: float = 0.0) -> dict[str, torch.Tensor]:
    """Inputs of the usual shapes."""
    return {
        "LATENTS": torch.full((2, 4, 4), value),
        "ATTENTION_MASK": torch.ones(2, 3, dtype=torch.int64),
    }


def executions(engine: Engine) -> int:
    return engine.calls.count(("execute", STREAM))


def test_run_replays_the_usual_shapes_and_leaves_earlier_outputs_alone(engine, graphs, tmp_path):
    plan = opened(engine, tmp_path, cuda_graph=True)

    first = plan.run(usual())["FRAMES"].fill_(1)
    graphs[0].effect = lambda: plan._recording.outputs["FRAMES"].fill_(2)
    second = plan.run(usual(3.0))["FRAMES"]

    assert plan.recorded
    # Once to warm up, once to record.
    assert executions(engine) == 2
    assert len(graphs) == 1 and graphs[0].replays == 2
    assert first.eq(1).all() and second.eq(2).all()
    assert plan._recording.inputs["LATENTS"].eq(3.0).all()


def test_run_of_other_shapes_leaves_the_recording_alone(engine, graphs, tmp_path):
    plan = opened(engine, tmp_path, cuda_graph=True)
    plan.run(usual())
    recorded_context = plan._recording.context

    plan.run(inputs())

    assert executions(engine) == 3 and graphs[0].replays == 1
    assert recorded_context is not plan._context


def test_plan_of_fixed_shapes_is_recorded_in_its_one_context(engine, graphs, tmp_path):
    fixed = tuple(replace(given, low=given.usual, high=given.usual) for given in SPEC.inputs)
    engine.spec = replace(SPEC, inputs=fixed)
    engine.tensors = [*engine.spec.inputs, *engine.spec.outputs]
    plan = opened(engine, tmp_path, cuda_graph=True)

    plan.run(usual())

    assert plan._recording.context is plan._context


@pytest.mark.parametrize("how", ["refused", "raised"])
def test_run_goes_on_without_a_recording_when_it_is_not_possible(
    engine, graphs, tmp_path, monkeypatch, how
):
    @contextlib.contextmanager
    def broken(graph, *, stream, capture_error_mode):
        engine.succeeds = False
        yield
        engine.succeeds = True
        if how == "raised":
            raise RuntimeError("operation not permitted when stream is capturing")

    monkeypatch.setattr(torch.cuda, "graph", broken)
    plan = opened(engine, tmp_path, cuda_graph=True)

    for _ in range(2):
        plan.run(usual())

    assert not plan.recorded
    # One to warm up, one that was to be recorded, then one for each run.
    assert executions(engine) == 4 and len(graphs) == 1


def test_integers_of_the_contract_become_those_of_an_older_plan(engine, tmp_path):
    engine.narrow_integers = True
    plan = opened(engine, tmp_path, version="8.6.0")
    bound = {}
    plan._context.set_tensor_address = lambda name, address: bound.update({name: address})
    given = inputs()

    plan.run(given)

    assert bound["LATENTS"] == given["LATENTS"].data_ptr()
    assert bound["ATTENTION_MASK"] != given["ATTENTION_MASK"].data_ptr()
    with pytest.raises(ValueError, match=r"ATTENTION_MASK is torch.int32; it must be INT64"):
        plan.run(inputs(ATTENTION_MASK=torch.ones(1, 3, dtype=torch.int32)))


def test_rows_run_one_after_another_where_a_plan_has_one_shape(engine, tmp_path):
    shapes = [(one, (1, *one.usual[1:])) for one in SPEC.inputs]
    inputs = tuple(replace(one, low=shape, usual=shape, high=shape) for one, shape in shapes)
    one_row = Engine("denoiser", replace(SPEC, inputs=inputs), {"FRAMES": (1, 5)})
    one_row.narrow_integers = True
    plan = opened(one_row, tmp_path, version="8.6.0")
    given = {
        "LATENTS": torch.arange(3.0)[:, None, None].expand(3, 4, 4),
        "ATTENTION_MASK": torch.ones(3, 3, dtype=torch.int64),
    }
    seen = []
    own_bind = plan._bind

    def bind(context, tensors):
        seen.append({name: tensor.clone() for name, tensor in tensors.items()})
        return own_bind(context, tensors)

    plan._bind = bind

    outputs = plan.run(given)

    assert [float(row["LATENTS"].mean()) for row in seen] == [0.0, 1.0, 2.0]
    assert all(row["ATTENTION_MASK"].shape == (1, 3) for row in seen)
    assert outputs["FRAMES"].shape[0] == 3
    # A config may ask for as many rows as it likes.
    assert {one.low[0] for one in plan.spec.inputs} == {1}
    assert {one.high[0] for one in plan.spec.inputs} == {ANY_ROWS}
    with pytest.raises(ValueError, match="LATENTS has shape"):
        plan.run({**given, "LATENTS": torch.zeros(3, 4, 5)})


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
