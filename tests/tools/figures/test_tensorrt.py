from __future__ import annotations

import json

import pytest

from reelserve.tools.figures import command as docs_command
from reelserve.tools.figures.tensorrt import (
    NOT_RUN,
    TENSORRT_WRITERS,
    bench_tensorrt,
    bench_tensorrt_served,
)

PAGE = "<!-- figures: {name} -->\nold\n<!-- end of figures -->\n"


def row(engine: str, **changes) -> dict:
    return {
        "model": "bundled",
        "stage": "denoiser",
        "engine": engine,
        "precision": "fp16",
        "ms": 2.5,
        "graph_ms": 1.25,
        "max_error": 0.0123,
        "relative_error": 0.0021,
        "plan_bytes": 26_400_000,
        "build_s": 41.2,
        "error": None,
        **changes,
    }


def sample() -> dict:
    failed = {"ms": None, "graph_ms": None, "max_error": None, "relative_error": None}
    return {
        "stages": [
            row("tensorrt"),
            row("onnxruntime-gpu", ms=7.125, graph_ms=None),
            row("pytorch", **failed, error="EngineError: no\nroom | here"),
            row("tensorrt", precision="fp32", **failed),
        ],
        "served": {
            "tensorrt fp16": {"psnr_db": 43.21, "videos_per_s": 9.5, "p95_s": 0.5, "error": None},
            "tensorrt fp32": {"psnr_db": None, "error": "ended with status 1"},
        },
        "gpu": "Some GPU",
        "driver": "580",
        "cpu": "Some CPU",
        "cores": 16,
        "versions": {"tensorrt": "8.6.0"},
        "commit": "0123456789abcdef",
        "date": "2026-11-28",
    }


def test_bench_tensorrt_puts_engines_side_by_side_and_names_failures():
    text = bench_tensorrt([sample()])

    assert (
        "| `bundled` | `denoiser` | fp16 | 2.1e-03 | 0.0123 | 41 | 26.4 | 2.5 (1.25) | 7.12 | "
        "failed |" in text
    )
    # Built and not run.
    assert "| `bundled` | `denoiser` | fp32 | – | – | 41 | 26.4 | – | – | – |" in text
    assert "- `bundled`, `denoiser`, pytorch in fp16: EngineError: no room / here" in text
    assert text.endswith(
        "on Some GPU, driver 580, Some CPU, 16 cores: tensorrt 8.6.0; commit 0123456789, "
        "2026-11-28."
    )


def test_bench_tensorrt_served_gives_psnr_and_speed():
    text = bench_tensorrt_served([sample()])

    assert "| `tensorrt fp16` | 43.2 | 9.50 | 0.50 | – |" in text
    assert "| `tensorrt fp32` | – | – | – | failed |" in text
    assert "- `tensorrt fp32`: ended with status 1" in text


@pytest.mark.parametrize("name", TENSORRT_WRITERS)
def test_docs_says_what_was_run_and_that_nothing_was(name, tmp_path):
    results = tmp_path / "docs" / "results"
    results.mkdir(parents=True)
    page = tmp_path / "docs" / "tensorrt.md"
    page.write_text(PAGE.format(name=name))
    docs_command.fill_pages(tmp_path, write=True)
    assert NOT_RUN in page.read_text()

    (results / "bench_tensorrt_some_gpu.json").write_text(json.dumps(sample()))
    docs_command.fill_pages(tmp_path, write=True)

    assert "on Some GPU" in page.read_text() and NOT_RUN not in page.read_text()
    for block in page.read_text().split("\n\n"):
        rows = [line for line in block.splitlines() if line.startswith("|")]
        assert len({line.count("|") for line in rows}) <= 1
