"""The order of parts, what is not run again, and what a failure or the budget's end leaves."""

from __future__ import annotations

from pathlib import Path

import pytest

from reelserve.tools.bench.gpu.children import ChildError
from reelserve.tools.bench.gpu.state import Budget, OutOfBudgetError, State
from reelserve.tools.bench.tensorrt import parts
from reelserve.tools.bench.tensorrt.models import MODELS
from reelserve.tools.bench.tensorrt.parts import CLIPS, MOST_S, SERVE, Part, PartRunner, all_parts
from reelserve.tools.bench.tensorrt.results import collect_parts, missing_parts, part_faults

BUNDLED = MODELS[0]
ENGINES = ("tensorrt", "onnxruntime-gpu", "pytorch")
STAGE = Part("stages", BUNDLED, "tensorrt", "fp16", "denoiser")
SERVED = Part(SERVE, BUNDLED, "tensorrt", "fp16")
COMPARED = Part(CLIPS, BUNDLED, "tensorrt", "fp16")
FIGURES = {"ms": 1.5, "graph_ms": 1.0, "relative_error": 1e-3, "plan_bytes": 7, "build_s": 9.0}


class Bench:
    """A runner whose parts only write down that they were run."""

    def __init__(self, work: Path, monkeypatch, budget: Budget | None = None) -> None:
        self.ran: list[str] = []
        self.error: Exception | None = None
        self.psnr_db = 47.0
        self.state = State(work / "state.json", {}, {"gpu": "Some GPU", "versions": {}})
        self.writes = 0
        self.runner = PartRunner(
            work,
            "onnxruntime-gpu",
            self.state,
            budget or Budget(None),
            lambda _: None,
            self._changed,
            fp32_stages=("denoiser",),
        )
        monkeypatch.setattr(parts, "run_module", self._module)
        monkeypatch.setattr(parts.serving, "export", self._export)
        monkeypatch.setattr(parts.serving, "measure_load", lambda *_: {"videos_per_s": 3.0})
        monkeypatch.setattr(parts.serving, "draw_clips", lambda *_: None)
        monkeypatch.setattr(parts.serving, "least_psnr_db", lambda own, reference: self.psnr_db)

    def _changed(self) -> None:
        self.writes += 1

    def _module(self, module, job, folder, budget):
        name = f"{job['model']} {job['stage']} {job['engine']} {job['precision']}"
        self.ran.append(f"build {name}" if job["build_only"] else name)
        if self.error is not None:
            raise self.error
        return FIGURES

    def _export(self, case, engine, precision, kept, work, budget):
        self.ran.append(f"export {engine} {precision} {','.join(kept)}".strip())
        return work


@pytest.fixture
def bench(tmp_path, monkeypatch) -> Bench:
    return Bench(tmp_path, monkeypatch)


def test_all_parts_are_every_stage_on_every_engine_and_three_servers():
    every = list(all_parts(ENGINES, "onnxruntime-gpu"))

    stages = [part for part in every if part.kind == "stages"]
    assert len(stages) == len(ENGINES) * 2 * (3 * 5 + 1)
    assert len({(part.model.name, part.phase) for part in every}) == len(every)
    for kind in (CLIPS, SERVE):
        served = [(part.engine, part.precision) for part in every if part.kind == kind]
        # First what the others are compared with.
        assert served == [("onnxruntime-gpu", "fp32"), ("tensorrt", "fp32"), ("tensorrt", "fp16")]
    assert every[0].engine == "tensorrt" and every[-1].model.name == "block-3b"


def test_run_measures_what_is_missing_once(bench):
    for _ in range(2):
        bench.runner.run([STAGE, SERVED])

    assert bench.ran == ["bundled denoiser tensorrt fp16", "export tensorrt fp16 denoiser"]
    assert bench.writes == 2
    assert missing_parts([STAGE, SERVED], bench.state) == []


def test_run_draws_again_what_others_are_compared_with_when_its_clips_are_lost(bench, tmp_path):
    reference = Part(CLIPS, BUNDLED, "onnxruntime-gpu", "fp32")
    for _ in range(2):
        bench.runner.run([reference])
    (tmp_path / "clips" / "onnxruntime-gpu_fp32").mkdir(parents=True)
    bench.runner.run([reference])

    assert bench.ran == ["export onnxruntime-gpu fp32"] * 2


def test_builds_are_made_ahead_and_their_failures_are_told_and_not_kept(bench):
    assert bench.runner.build_ahead([STAGE, COMPARED, SERVED], 2) == 0
    assert sorted(bench.ran) == [
        "build bundled denoiser tensorrt fp16",
        "export tensorrt fp16 denoiser",
    ]
    bench.error = ChildError("python -m stage ended with status -9: killed")
    assert bench.runner.build_ahead([STAGE], 2) == 1
    assert missing_parts([STAGE, SERVED], bench.state) == [STAGE.title, SERVED.title]
    bench.error = None
    bench.runner.run([STAGE])
    bench.ran.clear()
    bench.runner.build_ahead([STAGE], 2)
    assert bench.ran == []


def test_run_goes_on_when_a_part_fails(bench):
    log = "/somewhere/python -m module ended with status 1: first / second / the last words"
    bench.error = ChildError(log)

    bench.runner.run([STAGE, SERVED])

    found = collect_parts([STAGE, SERVED], bench.state, {"command": "reelserve bench-tensorrt"})
    assert found["stages"][0]["error"] == "ended with status 1: the last words"
    assert found["stages"][0]["ms"] is None
    assert found["served"]["tensorrt fp16"]["videos_per_s"] == 3.0
    assert found["gpu"] == "Some GPU" and "commit" in found
    assert part_faults([STAGE, SERVED], bench.state) == [
        "bundled: stages denoiser tensorrt fp16: ended with status 1: the last words"
    ]


def test_run_ends_before_a_part_that_does_not_fit(tmp_path, monkeypatch):
    bench = Bench(tmp_path, monkeypatch, Budget(100.0))

    with pytest.raises(OutOfBudgetError, match="serve tensorrt fp16 is expected to take 150 s"):
        bench.runner.run([STAGE, SERVED])

    assert missing_parts([STAGE, SERVED], bench.state) == ["bundled: serve tensorrt fp16"]


@pytest.mark.parametrize("seconds", [MOST_S + 60, MOST_S - 60], ids=["whole", "short"])
def test_part_that_does_not_end_fails_only_when_it_had_its_time(tmp_path, monkeypatch, seconds):
    bench = Bench(tmp_path, monkeypatch, Budget(seconds))
    bench.error = OutOfBudgetError("python did not end within the budget")

    if seconds < MOST_S:
        with pytest.raises(OutOfBudgetError):
            bench.runner.run([STAGE])
        assert missing_parts([STAGE], bench.state) != []
        return
    bench.runner.run([STAGE])
    (fault,) = part_faults([STAGE], bench.state)
    assert "not done in 540 s" in fault


@pytest.mark.parametrize("psnr_db", [39.9, float("nan")], ids=["low", "nan"])
def test_faults_name_clips_that_are_too_far_from_those_of_onnx(bench, psnr_db):
    bench.psnr_db = psnr_db
    bench.runner.run([COMPARED])

    (fault,) = part_faults([COMPARED], bench.state)
    assert f"clips have {psnr_db} dB" in fault and "the limit is 40 dB" in fault


def test_forget_lets_one_part_be_measured_again(bench):
    bench.runner.run([STAGE, SERVED])
    bench.state.forget(BUNDLED, STAGE.phase)

    assert missing_parts([STAGE, SERVED], bench.state) == [STAGE.title]


def test_results_hold_comparison_and_load_of_a_server_in_one_row(bench):
    bench.runner.run([COMPARED, SERVED])

    (row,) = collect_parts([COMPARED, SERVED], bench.state, {})["served"].values()

    assert (row["psnr_db"], row["videos_per_s"], row["error"]) == (47.0, 3.0, None)


def test_results_name_the_versions_of_every_python_that_measured(bench, tmp_path):
    machine = {"gpu": "Some GPU", "versions": {"tensorrt": "none", "torch": "2.11.0"}}
    State(tmp_path / "state.json", {}, machine).save(BUNDLED, STAGE.phase, FIGURES)
    machine = {"gpu": "Some GPU", "versions": {"tensorrt": "8.6.0", "torch": "2.11.0"}}
    state = State(tmp_path / "state.json", {}, machine)
    state.save(BUNDLED, SERVED.phase, {"psnr_db": 50.0})

    versions = collect_parts([STAGE, SERVED], state, {})["versions"]

    assert versions == {"tensorrt": "8.6.0", "torch": "2.11.0"}
