"""One service over several GPUs: what is measured, and two real Tritons on a CPU."""

from __future__ import annotations

import dataclasses
import json
from collections import Counter

import pytest

from reelserve.client.cli import OK, USAGE
from reelserve.tools.bench import processor_trace, scaling_command
from reelserve.tools.bench.gpu import scaling, served_clips
from reelserve.tools.bench.gpu.cases import CASES, DRY_CASES
from reelserve.tools.bench.gpu.gpu_monitor import gpu_numbers
from reelserve.tools.bench.gpu.phases import Runner
from reelserve.tools.bench.gpu.scaling import collect_scaling, counts, missing_phases
from reelserve.tools.bench.gpu.state import State
from reelserve.tools.bench.processor_trace import ProcessorTrace, part_of
from reelserve.tools.figures.scaling import SCALING_WRITERS

LTX, SIZED = CASES[:2]
LEVEL = {
    "p95_s": 6.0,
    "clips_by_triton": {"gpu0": 21, "gpu1": 20},
    "idle_share": 0.05,
    "cores": {"video_encoder": 2.5, "denoiser": 0.75, "front end": 0.05},
}
DEATH = {
    "gpus": 2,
    "callers": 8,
    "in_flight": 8,
    "lost": 5,
    "lost_as": {"UnavailableError": 4, "InternalError": 1},
    "later": {"clip": 9, "UnavailableError": 1},
    "back_s": 7.25,
}


@pytest.fixture
def state(tmp_path):
    machine = {"gpu": "Some GPU", "driver": "580", "versions": {"torch": "2.11"}}
    return State(tmp_path / "state.json", {"engine": "pytorch"}, machine)


def test_counts_double_and_end_with_all_gpus():
    assert [counts(gpus) for gpus in (1, 2, 3, 4, 8)] == [
        (1,),
        (1, 2),
        (1, 2, 3),
        (1, 2, 4),
        (1, 2, 4, 8),
    ]


def test_a_death_is_tried_where_there_is_another_triton(state):
    assert missing_phases(LTX, state, 1) == ["scale 1"]
    state.save(LTX, "scale 1", {})
    assert missing_phases(LTX, state, 4) == ["scale 2", "scale 4", "kill 4"]


def test_efficiency_is_of_as_many_gpus_as_there_are(state):
    state.save(LTX, "scale 2", {"gpus": 2, "videos_per_s": 1.2, **LEVEL})
    assert collect_scaling(CASES, state, 2, {})["rows"][0]["efficiency"] is None
    state.save(LTX, "scale 1", {"gpus": 1, "videos_per_s": 0.8, **LEVEL})
    state.save(SIZED, "kill 2", DEATH)
    results = collect_scaling(CASES, state, 2, {"engine": "pytorch", "precision": "bf16"})
    found = [(row["model"], row["gpus"], row["efficiency"]) for row in results["rows"]]
    assert found == [("ltx-2b", 1, 1.0), ("ltx-2b", 2, 0.75)]
    assert [death["model"] for death in results["deaths"]] == ["bundled-3b"]
    json.dumps(results, allow_nan=False)

    rows = SCALING_WRITERS["scaling"]([results])
    assert (
        "| `ltx-2b` | 2 | 1.200 | 0.750 | 6.00 | 21, 20 | 5.0% | `video_encoder` 2.50, "
        "`denoiser` 0.75 | 0.05 |" in rows
    )
    assert "by `make bench-scaling` on Some GPU, driver 580" in rows
    deaths = SCALING_WRITERS["scaling_deaths"]([results])
    assert "| `bundled-3b` | 2 | 8 | 4 | 1 | 1 of 10 | 7.2 |" in deaths


def test_parts_of_a_server_are_known_by_their_arguments():
    stub = "/x/python/triton_python_backend_stub"
    assert part_of([stub, "/r/video_encoder/1/model.py", "video_encoder_0_3"]) == "video_encoder"
    assert part_of(["/x/bin/tritonserver", "--model-repository=/r"]) == "tritonserver"
    assert part_of(["python", "-m", "reelserve.server", "--host=::1"]) == "front end"
    assert part_of(["python", "-m", "reelserve.loadtest", "plan.json"]) == "load generator"
    assert part_of(["python", "-m", "http.server"]) is part_of([]) is None


def test_cores_are_those_between_the_samples_around_the_window():
    trace = ProcessorTrace(root=0)
    seconds = [0.0, 100.0, 102.0, 104.0, 900.0]
    trace.samples = [(t, Counter(denoiser=busy, upsampler=7)) for t, busy in enumerate(seconds)]
    assert trace.cores(1, 3) == {"denoiser": 2.0, "upsampler": 0.0}
    assert trace.cores(1.2, 1.5) == {"denoiser": 2.0, "upsampler": 0.0}
    assert trace.cores(5, 9) == {} == ProcessorTrace(root=0).cores(0, 1)


def test_bench_scaling_fails_when_there_is_no_gpu(tmp_path, capsys):
    if gpu_numbers():
        pytest.skip("there is a GPU here")
    assert scaling_command.run(["--work-dir", str(tmp_path)]) == USAGE
    assert "there is no GPU here; --dry-run needs --gpus 0,1" in capsys.readouterr().err


@pytest.mark.server
def test_two_tritons_are_loaded_and_one_is_killed(tiny_repository, tmp_path, monkeypatch):
    case = dataclasses.replace(DRY_CASES[3], height=64, width=64, steps=20)
    monkeypatch.setattr(scaling_command, "DRY_CASES", (case,))
    monkeypatch.setattr(scaling, "repository_of", lambda case, work: tiny_repository)
    monkeypatch.setattr(Runner, "export", lambda self, case: None)
    # The tiny checkpoint takes few tokens.
    monkeypatch.setattr(served_clips, "read_prompts", lambda file: ("a red star", "a blue ring"))
    monkeypatch.setattr(scaling, "counts", lambda gpus: (gpus,))
    # Callers draw on for as long; that a Triton comes back, `test_serving.py` sees.
    monkeypatch.setattr(scaling, "BACK_TIMEOUT_S", 0.5)
    monkeypatch.setattr(processor_trace, "SAMPLE_S", 0.05)
    work, output = tmp_path / "work", tmp_path / "results.json"
    arguments = ["--dry-run", "--gpus", "0,1", "--keep", "--engine", "onnxruntime"]
    files = ["--work-dir", str(work), "--output", str(output)]
    assert scaling_command.run([*arguments, *files]) == OK

    results = json.loads(output.read_text())
    (row,), (death,) = results["rows"], results["deaths"]
    assert (row["gpus"], row["concurrency"], row["errors"], row["efficiency"]) == (2, 8, 0, None)
    assert set(row["clips_by_triton"]) == {"gpu0", "gpu1"}
    # What the load test counts, a round of its callers before, and clips under way at its end.
    assert sum(row["clips_by_triton"].values()) >= row["clips"] + 8
    assert min(row["clips_by_triton"].values()) > 0
    assert row["cores"]["front end"] > 0 and row["cores"]["denoiser"] > 0
    assert 0 < death["lost"] < death["in_flight"] <= death["callers"] == 8
    assert set(death["lost_as"]) == {"UnavailableError"}
    assert death["later"]["clip"] > 0
