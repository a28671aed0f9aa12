"""One stage on the engines that a machine without a GPU has."""

from __future__ import annotations

import json
import sys
from dataclasses import asdict, replace

import numpy as np
import pytest

from reelserve.tools.bench.gpu.state import Result
from reelserve.tools.bench.tensorrt import stage as module
from reelserve.tools.bench.tensorrt.stage import StageJob, inputs_of, measure_stage, moving_frames

pytestmark = pytest.mark.compile


@pytest.fixture
def job(tmp_path) -> StageJob:
    pytest.importorskip("diffusers", reason="needs pip install '.[families]'")
    return StageJob("latte-tiny", "text_encoder", "onnxruntime", "fp16", str(tmp_path))


@pytest.fixture(scope="module")
def measured(tmp_path_factory) -> tuple[StageJob, Result]:
    """A stage that was built and measured, and what was found."""
    pytest.importorskip("diffusers", reason="needs pip install '.[families]'")
    folder = tmp_path_factory.mktemp("measured")
    job = StageJob("latte-tiny", "text_encoder", "onnxruntime", "fp16", str(folder))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "SECONDS", 0.01)
        return job, measure_stage(job)


def test_measure_compares_with_torch_in_fp32_and_times(measured):
    _, found = measured

    assert 1e-5 < found["relative_error"] < 1e-2
    assert found["ms"] > 0 and found["graph_ms"] is None
    assert found["checked"] == "model.onnx" and found["plan_bytes"] > 1000
    assert found["shapes"]["INPUT_IDS"] == [1, 2, 120]


def test_measure_takes_what_is_built_unless_the_commit_is_another(measured, monkeypatch):
    job, first = measured
    monkeypatch.setattr(module, "SECONDS", 0.01)
    builds = []

    def build(engine, stage, path):
        # As it was built before.
        assert path.is_file()
        builds.append(stage.name)

    monkeypatch.setattr(module.OnnxRuntimeEngine, "build", build)
    built = measure_stage(replace(job, build_only=True))
    assert set(built) == {"plan_bytes", "build_s", "parameters"}
    assert {name: first[name] for name in built} == built
    found = measure_stage(job)
    assert builds == [] and found["ms"] > 0
    assert {name: found[name] for name in built} == built
    monkeypatch.setattr(module, "commit", lambda: "another")
    measure_stage(replace(job, build_only=True))
    assert builds == ["text_encoder"]


def test_main_writes_the_error_of_a_library(job, tmp_path, monkeypatch):
    wrong = StageJob(**{**asdict(job), "engine": "pytorch"})
    job_file, result_file = tmp_path / "job.json", tmp_path / "result.json"
    job_file.write_text(json.dumps(asdict(wrong)))
    monkeypatch.setattr(sys, "argv", ["stage", str(job_file), str(result_file)])
    monkeypatch.setattr(module.torch.cuda, "is_available", lambda: False)

    module.main()

    error = json.loads(result_file.read_text())["error"]
    assert error.startswith("EngineError: precision is fp16; on a CPU the engine pytorch builds")


def test_moving_frames_are_smooth_and_move():
    frames = moving_frames((1, 4, 32, 32, 3)).astype(int)

    assert frames.shape == (1, 4, 32, 32, 3)
    assert 0 <= frames.min() < 60 and 200 < frames.max() <= 255
    assert np.abs(np.diff(frames, axis=3)).max() < 20
    assert np.abs(np.diff(frames, axis=1)).max() > 2


def test_inputs_are_the_same_in_every_process(job, tmp_path):
    from reelserve.export.stages import Target
    from reelserve.tools.bench.tensorrt.models import MODELS, load_stage

    latte = next(model for model in MODELS if model.name == "latte-tiny")
    first, second = (inputs_of(load_stage(latte, "denoiser", Target(), tmp_path)) for _ in range(2))

    assert first["LATENTS"].shape[0] == 2 and first["TIMESTEP"].tolist() == [[500.0], [500.0]]
    assert all(np.array_equal(first[name], second[name]) for name in first)
