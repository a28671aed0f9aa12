"""The session of a plan, with a stub of TensorRT; no plan is run."""

from __future__ import annotations

import sys
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from reelserve.runtimes.graph_spec import GraphInput, GraphOutput, GraphSpec
from reelserve.server.engines import tensorrt_session
from reelserve.server.engines.tensorrt_session import TensorRTSession, TensorRTSettings
from tests.export.engines.tensorrt.stub import Engine, StubTensorRT

SPEC = GraphSpec(
    (GraphInput("FRAMES", "UINT8", (1, 16, 4, 4, 3), (1, 240, 4, 4, 3), (1, 80, 4, 4, 3)),),
    (GraphOutput("CONSISTENT_FRAMES", "UINT8", 5),),
)
SHAPE = (1, 16, 4, 4, 3)


def config(**changes) -> dict:
    tensor = {"data_type": "TYPE_UINT8", "dims": ["-1", "-1", "-1", "3"]}
    return {
        "name": "frame_consistency",
        "max_batch_size": 1,
        "input": [{"name": "FRAMES", **tensor}],
        "output": [{"name": "CONSISTENT_FRAMES", **tensor}],
        "parameters": {},
        **changes,
    }


@pytest.fixture
def engine(monkeypatch) -> Engine:
    engine = Engine("frame_consistency_fp32_sm90_trt10.13.0", SPEC, {"CONSISTENT_FRAMES": SHAPE})
    monkeypatch.setitem(sys.modules, "tensorrt", StubTensorRT(engine=engine))
    stream = SimpleNamespace(cuda_stream=1, wait_stream=lambda _: None, synchronize=lambda: None)
    monkeypatch.setattr(torch.cuda, "set_device", lambda device: None)
    monkeypatch.setattr(torch.cuda, "Stream", lambda device: stream)
    monkeypatch.setattr(torch.cuda, "current_stream", lambda device: None)
    monkeypatch.setattr(
        tensorrt_session, "on_host", lambda tensors: [tensor.numpy() for tensor in tensors]
    )
    return engine


@pytest.fixture
def plan(tmp_path):
    path = tmp_path / "model.plan"
    path.write_bytes(b"plan")
    return path


def settings(*, output_on_device: bool = False) -> TensorRTSettings:
    return TensorRTSettings(torch.device("cpu"), output_on_device, cuda_graphs=False)


def test_session_is_warm_when_it_is_ready(engine, plan):
    TensorRTSession(plan, config(), settings())

    assert ("shape", "FRAMES", (1, 80, 4, 4, 3)) in engine.calls
    assert engine.calls[-1] == ("execute", 1)


@pytest.mark.parametrize(("on_device", "kind"), [(False, np.ndarray), (True, torch.Tensor)])
def test_run_gives_outputs_where_the_config_says(engine, plan, on_device, kind):
    session = TensorRTSession(plan, config(), settings(output_on_device=on_device))

    outputs = session.run({"FRAMES": np.zeros(SHAPE, np.uint8)})

    assert isinstance(outputs["CONSISTENT_FRAMES"], kind)
    assert outputs["CONSISTENT_FRAMES"].shape == SHAPE


@pytest.mark.parametrize(
    ("frames", "message"),
    [
        (
            np.zeros((1, 250, 4, 4, 3), np.uint8),
            r"FRAMES has shape .*dimension 1 must be 16 to 240",
        ),
        (np.zeros(SHAPE, np.float32), "FRAMES is float32; the graph takes UINT8"),
    ],
    ids=["frames", "dtype"],
)
def test_run_refuses_what_the_plan_does_not_take(engine, plan, frames, message):
    session = TensorRTSession(plan, config(), settings())

    with pytest.raises(ValueError, match=message):
        session.run({"FRAMES": frames})


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"max_batch_size": 4}, r"max_batch_size is 4; FRAMES takes 1 to 1 rows in the graph"),
        ({"input": []}, "input FRAMES is in the graph but not in the config"),
        (
            {"output": [{"name": "CONSISTENT_FRAMES", "data_type": "TYPE_FP32", "dims": ["3"]}]},
            "is TYPE_FP32 in the config and UINT8 in the graph; .* and 5 dimensions in the graph",
        ),
    ],
    ids=["rows", "input", "output"],
)
def test_session_refuses_when_plan_and_config_disagree(engine, plan, changes, message):
    with pytest.raises(ValueError, match=rf"the config and model\.plan disagree: .*{message}"):
        TensorRTSession(plan, config(**changes), settings())


def test_settings_come_from_the_config():
    on_gpu = {
        "output_device": {"string_value": "gpu"},
        "cuda_graphs": {"string_value": "1"},
    }

    found = TensorRTSettings.from_config(config(parameters=on_gpu), "GPU", 1)

    assert found == TensorRTSettings(
        torch.device("cuda", 1), output_on_device=True, cuda_graphs=True
    )
    with pytest.raises(ValueError, match="instance kind is CPU; a plan runs on a GPU"):
        TensorRTSettings.from_config(config(), "CPU", 0)
