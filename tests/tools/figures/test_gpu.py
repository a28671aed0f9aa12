from __future__ import annotations

import json

import pytest

from reelserve.loadtest.plots import save_png
from reelserve.tools.bench.gpu.bench_plot import draw_bench
from reelserve.tools.figures import command as docs_command
from reelserve.tools.figures.gpu import GPU_WRITERS, bench_gpu, bench_gpu_curves
from tests.tools.bench.gpu.samples import sample, unfinished

PAGE = "<!-- figures: {name} -->\nold\n<!-- end of figures -->\n"


def test_bench_gpu_tells_load_idle_share_and_weights():
    text = bench_gpu([sample()])
    assert (
        "| `bundled-3b`, random | 8.00 B | 241 frames at 24, 1536×1024 from 768×512 | 4 | 0.654 "
        "| 4 | 10.00 | 2.50 | 12% | 8% | 40.0 |" in text
    )
    assert text.endswith(
        "Measured by `make bench-gpu` on Some GPU, driver 580, Some CPU, 16 cores: engine pytorch, "
        "bf16; torch 2.11; commit 0123456789-dirty, 2026-11-25."
    )


def test_bench_gpu_curves_gives_points_exponents_and_plot():
    text = bench_gpu_curves([sample()])
    assert "| a denoising step | frames | 65: 0.050; 241: 0.150 | 0.84 |" in text
    assert "| LTX-Video's decoder | pixels of a frame | 768×512: 0.360 | – |" in text
    assert "(images/bench_gpu_some_gpu.png)" in text


@pytest.mark.parametrize("results", [sample(), unfinished()], ids=["all", "unfinished"])
@pytest.mark.parametrize("name", GPU_WRITERS)
def test_tables_have_as_many_cells_in_every_row(name, results):
    for block in GPU_WRITERS[name]([results, results]).split("\n\n"):
        rows = [line for line in block.splitlines() if line.startswith("|")]
        assert len({row.count("|") for row in rows}) <= 1
    assert "None" not in GPU_WRITERS[name]([results])


@pytest.mark.parametrize("name", GPU_WRITERS)
def test_docs_fills_the_page_of_every_gpu_and_says_where_none_was_measured(name, tmp_path):
    results = tmp_path / "docs" / "results"
    results.mkdir(parents=True)
    page = tmp_path / "docs" / "bench_gpu.md"
    page.write_text(PAGE.format(name=name))
    docs_command.fill_pages(tmp_path, write=True)
    assert docs_command.NOT_MEASURED in page.read_text()
    for gpu in ("a", "b"):
        file = results / f"bench_gpu_{gpu}.json"
        file.write_text(json.dumps({**sample(), "gpu": f"GPU {gpu}"}))
    docs_command.fill_pages(tmp_path, write=True)
    text = page.read_text()
    assert "on GPU a" in text and "on GPU b" in text and "old" not in text
    assert docs_command.fill_pages(tmp_path, write=False) == []


@pytest.mark.parametrize("results", [sample(), unfinished()], ids=["all", "unfinished"])
def test_plot_is_drawn_of_what_there_is(results, tmp_path):
    save_png(draw_bench(results), tmp_path / "plot.png")
    assert (tmp_path / "plot.png").stat().st_size > 5_000
