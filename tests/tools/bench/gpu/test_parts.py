"""Cases, state, budget, monitor, fits, child processes."""

from __future__ import annotations

import dataclasses
import json
import shutil
import sys
import time

import pytest

from reelserve.export.repository import TEMPLATE
from reelserve.loadtest.figures import ServerTime
from reelserve.server.launch.stage_processes import has_ended
from reelserve.tools.bench.gpu.bench_results import collect, missing, newest_origin, overhead_share
from reelserve.tools.bench.gpu.cases import CASES, chosen
from reelserve.tools.bench.gpu.children import ChildError, run_child
from reelserve.tools.bench.gpu.curves import curve, fitted_exponent
from reelserve.tools.bench.gpu.gpu_monitor import MIB, GpuMonitor, Sample, parse_sample
from reelserve.tools.bench.gpu.in_process import StageTimes, encoder_threads
from reelserve.tools.bench.gpu.served_clips import level_clips, stage_times
from reelserve.tools.bench.gpu.state import Budget, OutOfBudgetError, State
from tests.tools.bench.gpu.samples import level, sample, stage

LTX, SIZED, LARGE, BUNDLED = CASES
SETTINGS = {"engine": "pytorch"}
MACHINE = {"gpu": "Some GPU"}


def test_state_takes_over_what_another_run_has_measured(tmp_path):
    one, other = (
        State(tmp_path / name / "state.json", SETTINGS, MACHINE) for name in ("one", "other")
    )
    one.save(LTX, "export", {"seconds": 1.0})
    other.save(LTX, "export", {"seconds": 2.0})
    other.save(LTX, "in_process", {"seconds": 3.0})
    other.save(SIZED, "export", {"seconds": 4.0})
    one.take_over(tmp_path / "other" / "state.json")
    again = State(tmp_path / "one" / "state.json", SETTINGS, MACHINE)
    found = [again.find(LTX, "export"), again.find(LTX, "in_process"), again.find(SIZED, "export")]
    assert found == [{"seconds": 1.0}, {"seconds": 3.0}, {"seconds": 4.0}]
    with pytest.raises(ValueError, match=r"none/state\.json does not exist"):
        one.take_over(tmp_path / "none" / "state.json")


def test_chosen_keeps_the_order_of_the_table():
    assert chosen("bundled, ltx-2b", CASES) == (LTX, BUNDLED)
    assert chosen(None, CASES) == CASES


@pytest.mark.parametrize("names", ["bundled-7b", "", ","])
def test_chosen_fails_when_there_is_no_such_case(names):
    with pytest.raises(ValueError, match="it must name some of ltx-2b, bundled-3b"):
        chosen(names, CASES)


def test_cases_draw_ten_seconds():
    assert all(10 <= case.num_frames / case.fps < 10.1 for case in CASES)
    assert [case.decoded for case in CASES] == [(512, 768), (512, 768), (512, 768), (256, 256)]
    assert [case.weights for case in CASES] == ["random", "random", "random", "trained"]


def test_budget_refuses_a_phase_that_does_not_fit():
    now = [100.0]
    budget = Budget(60.0, clock=lambda: now[0])
    budget.require("the export", 60.0)
    now[0] = 130.0
    assert budget.left_s == 30.0
    with pytest.raises(OutOfBudgetError, match="the export is expected to take 60 s; 30 s of"):
        budget.require("the export", 60.0)
    now[0] = 200.0
    assert budget.left_s == 0.0
    Budget(None).require("anything", 1e9)


def test_state_outlives_its_process_and_forgets_what_has_changed(tmp_path):
    file = tmp_path / "work" / "state.json"
    State(file, SETTINGS, MACHINE).save(LTX, "export", {"seconds": 1.0})
    state = State(file, SETTINGS, MACHINE)
    assert state.find(LTX, "export") == {"seconds": 1.0}
    assert state.find(LTX, "in_process") is None
    assert state.find(dataclasses.replace(LTX, steps=9), "export") is None
    assert State(file, {"engine": "onnxruntime"}, MACHINE).find(LTX, "export") is None
    assert {"commit", "date", "cpu"} <= set(state.origins(LTX)[0])


def test_state_forgets_a_phase_with_its_parts(tmp_path):
    state = State(tmp_path / "state.json", SETTINGS, MACHINE)
    for phase in ("export", "serve first", "serve 1"):
        state.save(LTX, phase, {})
    state.save(SIZED, "serve 1", {})
    state.forget(LTX, "serve")
    again = State(tmp_path / "state.json", SETTINGS, MACHINE)
    assert again.find(LTX, "serve 1") is None and again.find(LTX, "serve first") is None
    assert again.find(LTX, "export") == {} and again.find(SIZED, "serve 1") == {}


def test_parse_sample_reads_percent_and_mib():
    read = parse_sample("1, 37, 1234, 1980, 650.25\n", 5.0)
    assert read == Sample(5.0, 1, 0.37, 1234 * MIB, 1980, 650.25)
    read = parse_sample("0, 37, 1234, 1980, [N/A]\n", 5.0)
    assert read == Sample(5.0, 0, 0.37, 1234 * MIB, 1980, None)
    assert parse_sample("0, [N/A], [N/A], 1980, 650.25", 5.0) is None
    assert parse_sample("37, 1234", 5.0) is None
    assert parse_sample("", 5.0) is None


def test_gpu_monitor_means_over_the_window_and_counts_memory_from_its_start():
    monitor = GpuMonitor()
    shares = [0.9, 0.2, 0.4, 0.9]
    monitor.samples = [
        Sample(t, 0, share, (10 + t) * MIB, 1000.0 + t, None) for t, share in enumerate(shares)
    ]
    assert monitor.utilisation(1.0, 2.0) == pytest.approx(0.3)
    assert monitor.utilisation(1.2, 1.8) is None
    assert monitor.peak_memory_bytes() == 3 * MIB
    monitor.samples[1] = dataclasses.replace(monitor.samples[1], utilisation=0.0)
    assert monitor.speed(0.0, 2.0) == {"clock_mhz": 1001.0, "power_w": None}
    # A second GPU holds what other programs have put there: only what is added counts.
    monitor.samples += [Sample(t, 1, 0.5, (500 + 5 * t) * MIB, None, None) for t in range(2)]
    assert monitor.peak_memory_bytes() == 5 * MIB
    assert GpuMonitor().speed() == {"clock_mhz": None, "power_w": None}


def test_gpu_monitor_reads_a_program_that_prints_on_and_on(tmp_path, monkeypatch):
    tool = tmp_path / "nvidia-smi"
    tool.write_text("#!/bin/sh\nwhile :; do echo 0, 50, 100, 1980, ${1#--id=}; sleep 0.02; done\n")
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    with GpuMonitor(("3",)) as monitor:
        assert monitor.runs
        deadline = time.monotonic() + 20
        while not monitor.samples and time.monotonic() < deadline:
            time.sleep(0.01)
    assert (monitor.samples[0].utilisation, monitor.samples[0].power_w) == (0.5, 3)
    assert monitor._process is not None and monitor._process.poll() is not None


def test_gpu_monitor_samples_nothing_without_a_gpu(monkeypatch):
    monkeypatch.setattr(shutil, "which", lambda name: None)
    with GpuMonitor() as monitor:
        assert not monitor.runs
    assert (monitor.utilisation(0, 1e9), monitor.peak_memory_bytes()) == (None, None)


@pytest.mark.parametrize("power", [1.0, 1.5, 2.0])
def test_fitted_exponent_finds_the_power(power):
    amounts = [65.0, 121.0, 241.0, 361.0]
    assert fitted_exponent(amounts, [3e-4 * a**power for a in amounts]) == pytest.approx(power)


def test_fitted_exponent_fails_when_there_is_one_amount():
    with pytest.raises(ValueError, match="needs at least 2 amounts; there are 1"):
        fitted_exponent([241.0, 241.0], [0.1, 0.2])


def test_curve_leaves_out_sizes_that_have_no_room():
    torch = pytest.importorskip("torch")

    def call(size):
        if size[0] > 20:
            raise torch.OutOfMemoryError

    found = curve("m", "step", "frames", [(9, 32, 32), (17, 32, 32), (33, 32, 32)], call)
    assert [point["frames"] for point in found["points"]] == [9, 17]
    assert found["left_out"] == 1


def test_stage_times_add_up_what_is_asked_of_a_stage_several_times():
    times = StageTimes()
    assert times.take("denoiser", lambda: 7) == 7
    first = times.seconds["denoiser"]
    times.take("denoiser", lambda: time.sleep(0.01))
    assert times.seconds["denoiser"] >= first + 0.01


def test_stage_times_take_the_denoiser_out_of_its_caller():
    server = {"video_diffusion": ServerTime(4, 0.5, 2.0), "denoiser": ServerTime(4, 0.0, 2.0)}
    assert stage_times(server, 1) == {"video_diffusion": 0.5, "denoiser": 2.0}
    assert stage_times(server, 2) == {"video_diffusion": None, "denoiser": 2.0}


def test_overhead_share_is_what_the_same_stages_do_not_take():
    assert overhead_share({"seconds": 1.5}, {"mean_s": 2.0}) == 0.25
    assert overhead_share(None, {"mean_s": 2.0}) is None
    assert overhead_share({"seconds": 1.5}, {}) is None


def test_collect_gives_the_level_of_most_videos_and_every_field_of_the_schema(tmp_path):
    state = State(tmp_path / "state.json", SETTINGS, MACHINE)
    stages = {"denoiser": stage(3), "upsampler": stage(2)}
    state.save(SIZED, "export", {"stages": stages, "seconds": 1.0, "command": "reelserve export"})
    before = collect(CASES, state, SETTINGS)
    assert before["models"][0]["videos_per_s"] is None
    assert "bundled-3b: in_process" in missing(CASES, state, curves=True)

    state.save(SIZED, "in_process", {"seconds": 2.0, "stages_s": {}})
    for found in (level(1, 0.4), level(2, 0.7), level(4, 0.6)):
        state.save(SIZED, f"serve {found['concurrency']}", found)
    state.save(SIZED, "curves", {"curves": sample()["curves"]})
    results = collect(CASES, state, SETTINGS)
    (model,) = results["models"]
    assert set(sample()["models"][0]) == set(model)
    assert (model["concurrency"], model["videos_per_s"], model["p95_s"]) == (2, 0.7, 5.0)
    assert (model["parameters"], model["denoiser_parameters"]) == (5, 3)
    assert model["server_overhead_share"] == pytest.approx(1 - 2.0 / 2.5)
    assert len(results["curves"]) == 2
    assert missing((SIZED,), state, curves=True) == []
    json.dumps(results, allow_nan=False)


def test_run_child_says_the_end_of_the_log_when_it_fails(tmp_path):
    script = "print('first'); raise SystemExit('the reason')"
    with pytest.raises(ChildError, match="status 1: first / the reason"):
        run_child([sys.executable, "-c", script], tmp_path / "log", Budget(None))


def test_run_child_ends_all_it_has_started_when_the_budget_ends(tmp_path):
    script = (
        "import subprocess, time; "
        "child = subprocess.Popen(['sleep', '600']); print(child.pid, flush=True); time.sleep(600)"
    )
    with pytest.raises(OutOfBudgetError, match="did not end within the budget"):
        # What is left over for the end is more than the budget: the child is ended at once, so
        # wait until it has said its own child.
        run_child([sys.executable, "-c", script], tmp_path / "log", _budget_of(tmp_path / "log"))
    pid = int((tmp_path / "log").read_text().split()[0])
    assert _has_ended(pid)


def _budget_of(log):
    class WhenTold(Budget):
        @property
        def left_s(self):
            deadline = time.monotonic() + 20
            while not (log.exists() and log.read_text()) and time.monotonic() < deadline:
                time.sleep(0.01)
            return 0.0

    return WhenTold(None)


def _has_ended(pid: int) -> bool:
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        if has_ended(pid):
            return True
        time.sleep(0.05)
    return False


def test_encoder_threads_are_those_of_the_config_that_is_served():
    stage_folder = TEMPLATE / "video_encoder"
    assert encoder_threads(stage_folder, "") == 1
    text = (stage_folder / "configs" / "pytorch.pbtxt").read_text()
    assert f'string_value: "{encoder_threads(stage_folder, "pytorch")}"' in text
    assert encoder_threads(stage_folder, "no_such_engine") == 1


def test_levels_of_quick_models_count_more_clips():
    assert [level_clips(callers, 10.0) for callers in (1, 2, 4)] == [3, 6, 8]
    assert [level_clips(callers, 0.125) for callers in (1, 2, 4)] == [40, 80, 160]


def test_results_tell_the_machine_that_measured_and_not_the_one_that_writes(tmp_path):
    elsewhere, here = tmp_path / "elsewhere.json", State(tmp_path / "here.json", SETTINGS, {})
    assert newest_origin(CASES, here) == {}
    State(elsewhere, SETTINGS, MACHINE).save(LTX, "export", {"stages": {"denoiser": stage(1)}})
    here.take_over(elsewhere)
    results = collect(CASES, here, SETTINGS)
    assert (results["gpu"], results["engine"]) == ("Some GPU", "pytorch")
    assert {"commit", "cpu", "date"} <= set(results)

    State(elsewhere, SETTINGS, {"gpu": "Other GPU"}).save(
        SIZED, "export", {"stages": {"denoiser": stage(1)}}
    )
    here.take_over(elsewhere)
    with pytest.raises(ValueError, match="measured on Other GPU and on Some GPU; the results"):
        collect(CASES, here, SETTINGS)
