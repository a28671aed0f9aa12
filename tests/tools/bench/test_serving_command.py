from __future__ import annotations

import json

import pytest

from reelserve.client import InternalError
from reelserve.client.cli import FAILURE, OK, USAGE
from reelserve.tools.bench import serving_command as bench_serving_command
from reelserve.tools.bench.cancel_latency import all_ways
from reelserve.tools.figures.tables import serving

COUNTS = ["--cancels=2", "--refusals=2", "--rounds=1"]
LONG = ["--num-frames=64", "--steps=400", "--height=128", "--width=128"]
"""A request of the tiny repository that takes long enough to be left."""


@pytest.mark.server
def test_bench_serving_writes_every_figure(tiny_repository, tmp_path):
    output = tmp_path / "new" / "serving.json"
    arguments = ["--model-repository", str(tiny_repository), "--output", str(output)]
    assert bench_serving_command.run([*arguments, *COUNTS, *LONG]) == OK
    results = json.loads(output.read_text())
    assert [(one["model"], one["how"]) for one in results["cancels"]] == [
        (way.model, way.how) for way in all_ways()
    ]
    for one in results["cancels"]:
        assert len(one["runs_s"]) == len(one["steps_s"]) == 2
        assert 0 < one["median_s"] <= one["max_s"]
        assert 0 < one["step_median_s"] <= one["step_max_s"]
        assert 0 <= one["within_bound"] <= 2
    assert [one["refusals"] for one in results["refusals"]] == [2, 2]
    assert all(0 < one["median_s"] <= one["p99_s"] <= one["max_s"] for one in results["refusals"])
    assert 0 < results["stream"]["first_event_s"] <= results["stream"]["seconds"]
    assert results["stream"]["longest_silence_s"] <= results["stream"]["seconds"]
    assert results["short_clips"]["num_frames"] == 16
    assert min(results["short_clips"][name] for name in ("videos_per_s", "videos_per_s_at_4")) > 0
    assert results["request"]["num_inference_steps"] == 400
    assert {"commit", "cpu", "cores", "date", "versions", "poll_s"} <= set(results)
    assert "make bench-serving" in serving(results)


def test_bench_serving_says_so_when_there_is_no_model_repository(tmp_path, capsys):
    arguments = ["--model-repository", str(tmp_path), "--output", str(tmp_path / "s.json")]
    assert bench_serving_command.run(arguments) == FAILURE
    assert "model repository" in capsys.readouterr().err
    assert not (tmp_path / "s.json").exists()


@pytest.mark.parametrize("option", ["--cancels=0", "--refusals=-1", "--rounds=x"])
def test_bench_serving_exits_with_usage_when_a_count_is_wrong(option):
    with pytest.raises(SystemExit) as stopped:
        bench_serving_command.run([option])
    assert stopped.value.code == USAGE


@pytest.mark.parametrize("method", ["generate", "stream"])
def test_a_refusal_that_is_none_is_an_error(fake_triton, method):
    with bench_serving_command.Client(fake_triton.url) as client:
        with pytest.raises(InternalError, match="accepted"):
            bench_serving_command._refusal_s(client, method)
        fake_triton.refusals = ["12 requests are in flight; retry after 3 s"]
        assert bench_serving_command._refusal_s(client, method) > 0


def test_measure_stream_takes_the_gaps_between_events(fake_triton):
    with bench_serving_command.Client(fake_triton.url) as client:
        results = bench_serving_command.measure_stream(client, {})
    assert results["events"] == 1 and results["video"].info.seed == 7
    assert 0 < results["first_event_s"] == results["longest_silence_s"] <= results["seconds"]
