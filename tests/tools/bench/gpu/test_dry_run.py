"""The whole benchmark on a CPU: tiny models through the exporter and the real server."""

from __future__ import annotations

import json
import os
import runpy
import sys
import time
import warnings
from collections.abc import Sequence
from pathlib import Path
from unittest import mock

import pytest

pytest.importorskip("diffusers", reason="diffusers is not installed: pip install '.[families]'")

from reelserve.client.cli import OK, USAGE
from reelserve.export import command as export_command
from reelserve.tools.bench import gpu_command as bench_gpu_command
from reelserve.tools.bench.gpu import phases
from reelserve.tools.bench.gpu.children import run_module
from reelserve.tools.bench.gpu.gpu_monitor import gpu_query
from reelserve.tools.bench.gpu.state import Budget, Result
from reelserve.tools.bench.process_memory import descendants
from reelserve.tools.results_file import write_json
from tests.export.kept_graphs import kept_graphs
from tests.tools.bench.gpu.samples import sample

COMMAND = ["--dry-run", "--only", "bundled-3b", "--engine", "onnxruntime"]


def export_here(command: Sequence[str], log: Path, budget: Budget) -> float:
    """Exports in this process, so that the graphs of an earlier run are taken."""
    started = time.monotonic()
    with kept_graphs():
        assert export_command.run(list(command[2:])) == export_command.EXIT_OK, log
    return time.monotonic() - started


def module_here(module: str, job: object, folder: Path, budget: Budget) -> Result:
    """Runs a part in this process, which has imported torch and diffusers, through its files.

    The part that times the exported stages keeps a process of its own.
    """
    if module.endswith(".in_process"):
        return run_module(module, job, folder, budget)
    job_file, result_file = folder / "job.json", folder / "result.json"
    write_json(job_file, job)
    argv = [module, str(job_file), str(result_file)]
    with mock.patch.object(sys, "argv", argv), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "'.*' found in sys.modules", RuntimeWarning)
        runpy.run_module(module, run_name="__main__")
    result: Result = json.loads(result_file.read_text())
    return result


def run(folder: Path, *arguments: str) -> tuple[int, dict]:
    output = folder / "results.json"
    files = ["--work-dir", str(folder / "work"), "--output", str(output)]
    status = bench_gpu_command.run([*COMMAND, *files, *arguments])
    return status, json.loads(output.read_text()) if output.exists() else {}


@pytest.mark.server
@pytest.mark.compile
def test_dry_run_measures_every_phase_and_leaves_nothing_running(tmp_path, monkeypatch):
    monkeypatch.setattr(phases, "run_child", export_here)
    monkeypatch.setattr(phases, "run_module", module_here)
    before = set(descendants(os.getpid()))
    status, _ = run(tmp_path, "--budget-seconds", "30")
    assert status == bench_gpu_command.INCOMPLETE

    plot = tmp_path / "plot.png"
    status, results = run(tmp_path, "--plot", str(plot))
    assert status == OK
    (model,) = results["models"]
    assert set(model) == set(sample()["models"][0])
    assert set(results) >= set(sample())
    assert (model["model"], model["weights"], model["steps"]) == ("bundled-3b", "random", 2)
    assert (model["frames"], model["height"], model["width"]) == (9, 64, 64)
    assert [level["concurrency"] for level in model["levels"]] == [1, 2, 4]
    assert all(
        level["clips"] >= level["concurrency"] and not level["errors"] for level in model["levels"]
    )
    assert set(model["in_process"]["stages_s"]) == set(model["stages_s"])
    assert model["peak_memory_bytes"] > 0
    assert model["server_overhead_share"] is not None
    assert {(c["what"], c["against"]) for c in results["curves"]} == {
        ("step", "frames"),
        ("step", "pixels"),
    }
    assert plot.stat().st_size > 10_000
    assert set(descendants(os.getpid())) <= before

    status, again = run(tmp_path)
    assert status == OK
    assert (again["models"], again["curves"]) == (results["models"], results["curves"])

    (tmp_path / "other").mkdir()
    status, merged = run(tmp_path / "other", "--merge", str(tmp_path / "work"))
    assert status == OK
    assert (merged["models"], merged["curves"]) == (results["models"], results["curves"])


def test_bench_gpu_fails_when_there_is_no_gpu(tmp_path, capsys):
    if gpu_query("name") is not None:
        pytest.skip("there is a GPU here")
    files = ["--work-dir", str(tmp_path), "--output", str(tmp_path / "none.json")]
    assert bench_gpu_command.run(files) == USAGE
    assert "there is no GPU here; --dry-run needs none" in capsys.readouterr().err
    assert not (tmp_path / "none.json").exists()
