from __future__ import annotations

import json

import pytest

from reelserve.client.cli import FAILURE, OK, USAGE
from reelserve.tools.bench import cpu_command as bench_cpu_command
from reelserve.tools.figures.tables import bench_cpu


@pytest.mark.server
def test_bench_cpu_writes_every_figure(tiny_repository, tmp_path):
    output = tmp_path / "new" / "bench_cpu.json"
    arguments = ["--model-repository", str(tiny_repository), "--output", str(output)]
    assert bench_cpu_command.run([*arguments, "--clips", "2", "--rounds", "1"]) == OK
    results = json.loads(output.read_text())
    assert len(results["clips_s"]) == 2
    assert results["videos_per_s"] == pytest.approx(1 / results["seconds_per_clip"], rel=0.02)
    assert results["videos_per_s_at_4"] > 0
    assert results["ready_s"] > 0
    assert results["peak_memory_bytes"] > 50 * 2**20
    assert len(results["stages_s"]) == 8
    assert 0 < sum(results["stages_s"].values()) < 2 * max(results["clips_s"])
    assert results["request"]["checkpoint"] == "tiny"
    assert {"commit", "cpu", "cores", "date", "versions"} <= set(results)
    assert "make bench-cpu" in bench_cpu(results)


def test_bench_cpu_says_so_when_there_is_no_model_repository(tmp_path, capsys):
    arguments = ["--model-repository", str(tmp_path), "--output", str(tmp_path / "b.json")]
    assert bench_cpu_command.run(arguments) == FAILURE
    assert "model repository" in capsys.readouterr().err
    assert not (tmp_path / "b.json").exists()


@pytest.mark.parametrize("clips", ["0", "-1", "x"])
def test_bench_cpu_exits_with_usage_when_the_count_is_wrong(clips):
    with pytest.raises(SystemExit) as stopped:
        bench_cpu_command.run([f"--clips={clips}"])
    assert stopped.value.code == USAGE
