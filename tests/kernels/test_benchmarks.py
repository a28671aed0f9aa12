"""The benchmarks run: tiny shapes on a CPU. Nothing here asserts a duration."""

from __future__ import annotations

import csv

import pytest
import torch

from reelserve.kernels.benchmarks import bench_denoiser_step
from reelserve.kernels.benchmarks import bench_temporal_attention as bench
from reelserve.kernels.benchmarks.providers import PROVIDERS
from reelserve.kernels.benchmarks.timing import Times, results_file, write_rows
from reelserve.kernels.benchmarks.tune_temporal_attention import ROWS as TUNED
from reelserve.kernels.benchmarks.tune_temporal_attention import candidates
from reelserve.kernels.launch import launch_config
from reelserve.kernels.temporal_attention import temporal_attention_ref

EAGER = ("reelserve", "sdpa_strided", "sdpa_transposed")


def test_bench_writes_a_row_for_every_shape_and_provider(tmp_path):
    file = tmp_path / "results" / "smoke.csv"
    write_rows(bench.bench_rows(bench.SMOKE_ROWS, EAGER, "cpu"), bench.COLUMNS, file, "smoke")
    with file.open(newline="") as lines:
        rows = list(csv.DictReader(lines))
    assert tuple(rows[0]) == bench.COLUMNS
    assert [row["provider"] for row in rows] == [*EAGER] * len(bench.SMOKE_ROWS)
    assert all(float(row["p20_ms"]) <= float(row["p50_ms"]) for row in rows)


def test_bench_goes_on_when_a_provider_fails(monkeypatch):
    def broken(inputs):
        raise RuntimeError("does not compile")

    monkeypatch.setitem(PROVIDERS, "compiled", broken)
    found = list(bench.bench_rows(bench.SMOKE_ROWS[:1], ("compiled", "reelserve"), "cpu"))
    assert [row["provider"] for row in found] == ["reelserve"]


def test_bench_refuses_when_tests_are_red(monkeypatch, tmp_path):
    monkeypatch.setattr("sys.argv", ["bench", "--output", str(tmp_path / "none.csv")])
    monkeypatch.setattr(
        bench, "require_green_tests", lambda paths: (_ for _ in ()).throw(SystemExit)
    )
    with pytest.raises(SystemExit):
        bench.main()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("row", bench.SMOKE_ROWS, ids=str)
def test_every_eager_provider_computes_temporal_attention(row):
    inputs = row.inputs("cpu")
    expected = temporal_attention_ref(*inputs, upcast=True)
    for provider in EAGER:
        found = PROVIDERS[provider](inputs)()
        if provider == "sdpa_strided":
            found = torch.stack([part.permute(2, 0, 1, 3).flatten(2) for part in found])
        torch.testing.assert_close(found.double(), expected, rtol=0.05, atol=0.05)


def test_rows_are_those_of_the_bar():
    moved = [row.moved_bytes for row in bench.ROWS if row.F >= 16]
    assert min(moved) >= 64e6
    assert {row.F for row in bench.ROWS} >= {13, 24, 48, 96, 128}
    assert bench.BenchmarkRow(1, 31, 384, 20, 128).moved_bytes == 4 * 31 * 384 * 20 * 128 * 2


def test_quantiles_are_of_single_calls():
    assert Times.of([5.0, 1.0, 2.0, 3.0, 4.0, 6.0]) == Times(2.0, 3.5, 5.0)


def test_results_file_is_named_for_the_gpu():
    assert results_file("temporal_attention", "NVIDIA H100 80GB HBM3").name == (
        "temporal_attention_nvidia_h100_80gb_hbm3.csv"
    )


@pytest.mark.parametrize("row", TUNED, ids=str)
def test_candidates_hold_what_the_table_says(row):
    found = list(candidates(row.F, row.D))
    assert launch_config(90, row.F, row.N, row.D) in found
    assert len(found) < 60


def test_plot_is_drawn_from_the_csv(tmp_path):
    pytest.importorskip("matplotlib", reason="needs the extra `benchmarks`")
    from reelserve.kernels.benchmarks.plot_temporal_attention import draw_shares

    file = tmp_path / "smoke.csv"
    write_rows(bench.bench_rows(bench.SMOKE_ROWS, EAGER, "cpu"), bench.COLUMNS, file, "smoke")
    assert draw_shares(file).read_bytes().startswith(b"\x89PNG")


def test_denoiser_step_is_timed_with_both_kinds_of_attention(monkeypatch, tmp_path):
    file = tmp_path / "steps.csv"
    monkeypatch.setattr("sys.argv", ["bench", "--smoke", "--output", str(file)])
    bench_denoiser_step.main()
    with file.open(newline="") as lines:
        rows = list(csv.DictReader(lines))
    assert tuple(rows[0]) == bench_denoiser_step.COLUMNS
    assert [row["attention"] for row in rows] == ["fused", "sdpa"]


def test_both_kinds_of_attention_give_the_same_step():
    case = bench_denoiser_step.SMOKE_CASES[0]
    module, inputs = case.build("cpu").float(), [x.float() for x in case.inputs("cpu")]
    torch.nn.init.normal_(module.to_velocity.weight)
    found = []
    for attention in ("fused", "sdpa"):
        with bench_denoiser_step.attention_by(attention), torch.no_grad():
            found.append(module(*inputs))
    torch.testing.assert_close(*found)
