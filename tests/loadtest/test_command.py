from __future__ import annotations

import csv
import importlib.util
import json
import os
import signal
import subprocess
import sys

import pytest

from reelserve.client.cli import FAILURE, INTERRUPTED, OK, USAGE
from reelserve.loadtest import command as loadtest_command
from reelserve.loadtest.arguments import parse_arguments
from reelserve.server.launch.stage_processes import has_ended
from reelserve.tools.bench.process_memory import descendants
from reelserve.tools.figures.tables import loadtest_cpu

PROMPTS = "a red circle moves\n\nthe blue star spins slowly\na green square on the sea\n"


@pytest.fixture
def prompts(tmp_path):
    file = tmp_path / "prompts.txt"
    file.write_text(PROMPTS)
    return file


def test_options_still_answer_to_their_former_names():
    former = parse_arguments(["--stage-seconds", "3", "--max-stage-seconds", "60"], None)
    assert (former.level_seconds, former.max_level_seconds) == (3.0, 60.0)


def law_ratios(results) -> list[float]:
    return [row["littles_law_ratio"] for row in results["sweep"]]


@pytest.mark.server
def test_loadtest_judges_a_running_server(tiny_server, prompts, tmp_path, capfd):
    output, file, plot = tmp_path / "out", tmp_path / "new" / "r.json", tmp_path / "plot.png"
    arguments = [
        *("--url", tiny_server.grpc_url, "--prompts", str(prompts), "--concurrency", "1,3"),
        *("--clips", "30", "--level-seconds", "3", "--goal-videos-per-s", "0.01"),
        *("--output-dir", str(output), "--json", str(file), "--plot", str(plot)),
        *("--num-inference-steps", "2", "--hardware", "a test"),
    ]
    status = loadtest_command.run(arguments)
    shown = capfd.readouterr().err
    assert status == OK, shown
    results = json.loads(file.read_text())
    assert results["verdict"] == "pass"
    assert {"videos_per_s", "p50_s", "p95_s", "error_share", "sweep"} <= set(results)
    assert [row["concurrency"] for row in results["sweep"]] == [1, 3]
    assert law_ratios(results) == pytest.approx([1, 1], abs=0.1)
    assert results["error_share"] == 0
    assert results["request"]["name"] == "text_to_video 64x64 16f 2 steps"
    assert results["normalised_to"]["per"] == "machine (CPU)"
    assert results["hardware"] == "a test"
    measured = results["sweep"][1]["measured"]
    assert measured["compute_s"]["denoiser"] > 0
    assert measured["queue_s"]["video_diffusion"] >= 0
    assert (output / "loadtest.json").read_text() == file.read_text()
    assert plot.read_bytes() == (output / "sweep.png").read_bytes()
    assert "text_to_video 64x64 16f 2 steps" in (output / "report.html").read_text()
    with (output / "requests.csv").open(newline="") as rows:
        counted = [row["counted_at"] for row in csv.DictReader(rows)]
    assert counted.count("1") == results["sweep"][0]["clips"] >= 30
    assert counted.count("3") == results["sweep"][1]["clips"]
    assert "not counted" in shown
    assert "pass: Little's law holds" in shown
    assert "gevent" not in sys.modules, "the load is made in another process"


@pytest.mark.server
def test_loadtest_fails_when_an_open_loop_misses_its_goal(tiny_server, prompts, tmp_path, capfd):
    arguments = [
        *("--url", tiny_server.grpc_url, "--prompts", str(prompts), "--output-dir", str(tmp_path)),
        *("--loop", "open", "--rates", "8", "--ramp", "1", "--clips", "40"),
        *("--goal-videos-per-s", "1000", "--num-inference-steps", "2", "--gpus", "2"),
    ]
    assert loadtest_command.run(arguments) == FAILURE
    results = json.loads((tmp_path / "loadtest.json").read_text())
    assert results["verdict"] == "fail"
    assert not results["findings"][0]["passed"]
    assert results["findings"][1]["passed"]
    assert results["normalised_to"] == {"clip_s": 10.0, "per": "GPU", "gpus": 2}
    (row,) = results["sweep"]
    assert row["rate_per_s"] == 8
    assert row["clips"] > 10
    assert row["littles_law_ratio"] > 0
    assert "FAIL: Throughput with 8 requests/s" in capfd.readouterr().err


@pytest.mark.server
def test_loadtest_exits_with_usage_when_the_server_refuses_the_request(tiny_server, capsys):
    arguments = ["--url", tiny_server.grpc_url, "--num-frames", "18"]
    assert loadtest_command.run(arguments) == USAGE
    assert "NUM_FRAMES is 18; it must be a multiple of 4" in capsys.readouterr().err


@pytest.mark.server
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_loadtest_stops_load_and_server_when_it_is_interrupted(
    tiny_repository, prompts, tmp_path, number
):
    command = [sys.executable, "-c", "from reelserve.client.cli import main; exit(main())"]
    arguments = ["--model-repository", str(tiny_repository), "--prompts", str(prompts)]
    process = subprocess.Popen(
        [*command, "loadtest", *arguments, "--clips", "100000", "--output-dir", str(tmp_path)],
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    while "ok after" not in process.stderr.readline():
        pass
    started = descendants(process.pid)
    if number == signal.SIGINT:
        # As Ctrl-C does: to everyone in the foreground.
        os.killpg(process.pid, number)
    else:
        process.send_signal(number)
    _, shown = process.communicate(timeout=60)
    assert process.returncode == INTERRUPTED
    assert shown.splitlines()[-1] == "interrupted"
    assert "Traceback" not in shown
    assert len(started) > 2
    assert all(map(has_ended, started))


def test_loadtest_says_so_when_nothing_answers(tmp_path, capsys):
    arguments = ["--url", "localhost:1", "--output-dir", str(tmp_path / "out")]
    assert loadtest_command.run(arguments) == FAILURE
    assert "localhost:1" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_loadtest_says_so_when_there_is_no_model_repository(tmp_path, capsys):
    assert loadtest_command.run(["--model-repository", str(tmp_path)]) == FAILURE
    assert "model repository" in capsys.readouterr().err


def test_loadtest_says_what_to_install_when_locust_is_missing(monkeypatch, capsys):
    find = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: None if name == "locust" else find(name)
    )
    assert loadtest_command.run(["--url", "localhost:1"]) == FAILURE
    assert "pip install 'reelserve[loadtest]'" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--loop", "half"], "argument --loop: invalid choice: 'half'"),
        (["--concurrency", "0"], "argument --concurrency: 0 is not a whole number of at least 1"),
        (["--concurrency", "1,x"], "argument --concurrency: x is not a whole number"),
        (["--concurrency", "4,2"], "--concurrency is 4,2; each value must be larger"),
        (["--concurrency", "2000"], "--concurrency is 2000; the limits are above 0 and at most"),
        (["--rates", "1"], "--rates is for --loop open"),
        (["--loop", "open"], "--rates is missing"),
        (["--loop", "open", "--rates", "0"], "argument --rates: 0 is not a number above 0"),
        (["--loop", "open", "--rates", "1", "--concurrency", "1"], "--concurrency is for"),
        (["--clips", "0"], "argument --clips: 0 is not a whole number of at least 1"),
        (["--warm-up", "-1"], "argument --warm-up: -1 is not a whole number of at least 0"),
        (["--gpus", "1.5"], "argument --gpus: 1.5 is not a whole number of at least 0"),
        (["--ramp", "nan"], "argument --ramp: nan is not a number at least 0"),
        (["--goal-p95-s", "x"], "argument --goal-p95-s: x is not a number at least 0"),
        (["--max-error-share", "2"], "2 is not a number at least 0 and at most 1"),
        (["--prompts", "no/such/file"], "argument --prompts: no/such/file: No such file"),
    ],
)
def test_loadtest_exits_with_usage_when_an_option_is_wrong(arguments, message, capsys):
    with pytest.raises(SystemExit) as stopped:
        loadtest_command.run(arguments)
    assert stopped.value.code == USAGE
    assert message in capsys.readouterr().err


def test_loadtest_exits_with_usage_when_there_are_no_prompts(tmp_path, capsys):
    file = tmp_path / "prompts.txt"
    file.write_text("\n")
    with pytest.raises(SystemExit) as stopped:
        loadtest_command.run(["--prompts", str(file)])
    assert stopped.value.code == USAGE
    assert "holds 0 sentences" in capsys.readouterr().err


def test_levels_are_those_of_the_loop():
    assert parse_arguments([], None).levels == (1, 2, 4, 8)
    assert parse_arguments(["--concurrency", "3"], None).levels == (3,)
    assert parse_arguments(["--loop", "open", "--rates", "0.05,0.1"], None).levels == (0.05, 0.1)


def test_loadtest_cpu_table_marks_the_knee_and_shows_the_plot():
    row = {"p50_s": 9.0, "p95_s": 10.0, "p99_s": 10.0, "clips": 8, "littles_law_ratio": 1.0}
    results = {
        "verdict": "pass",
        "findings": [{"passed": True, "sentence": "All is well."}],
        "reached": ["The lower end."],
        "normalised_to": {"clip_s": 10.0, "per": "machine (CPU)", "gpus": 0},
        "knee": {"concurrency": 2, "saturated": True},
        "sweep": [{"concurrency": n, "videos_per_s": 0.1 * n, **row} for n in (1, 2)],
        "request": {
            "num_frames": 80,
            "fps": 8,
            "width": 256,
            "height": 256,
            "num_inference_steps": 8,
        },
        "hardware": "Some CPU, 2 cores",
        "commit": "0123456789abcdef",
        "date": "2026-11-23",
    }
    shown = loadtest_cpu(results)
    assert "| 2, the knee | 0.200 | 9.0 |" in shown
    assert "| 1 | 0.100 |" in shown
    assert "Verdict: **pass**. All is well. The lower end." in shown
    assert "](images/loadtest_cpu.png)" in shown
    assert "make loadtest" in shown
