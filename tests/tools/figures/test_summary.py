"""The README's table of few figures: each row from its file, or said to be missing."""

from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path

import pytest

from reelserve.tools.figures.summary import ROWS, summary

RESULTS = Path(__file__).parents[3] / "docs" / "results"


@pytest.fixture
def results(tmp_path):
    for _, name, _ in ROWS:
        shutil.copy(RESULTS / name, tmp_path)
    return tmp_path


def rows(folder: Path) -> dict[str, str]:
    lines = summary(folder).splitlines()[2:]
    cells = [line.strip("| ").split(" | ") for line in lines]
    assert {len(row) for row in cells} == {3}
    return {row[0]: row[1] for row in cells}


def test_every_row_tells_its_figure_hardware_and_commit(results):
    measured = json.loads((results / "bench_gpu_nvidia_h100_80gb_hbm3.json").read_text())
    ltx = next(model for model in measured["models"] if model["model"] == "ltx-2b")
    found = rows(results)
    assert len(found) == len(ROWS)
    shown = found["LTX-Video 2B, 10 s clips"]
    assert shown.startswith(f"**{ltx['videos_per_s']:.2f} videos per second**")
    assert f"p95 {ltx['p95_s']:.1f} s" in shown and "random weights" in shown
    assert summary(results).count("commit ") == len(ROWS)


def test_row_says_so_when_its_file_is_missing(results):
    (results / "faults.json").unlink()
    assert rows(results)["Ways to break the server, each tried"] == "–"
    assert "not measured yet" in summary(results)


def test_faults_row_counts_what_was_not_as_expected(results):
    found = json.loads((results / "faults.json").read_text())
    found[0]["as_expected"], found[0]["lost"] = False, 2
    (results / "faults.json").write_text(json.dumps(found))
    shown = rows(results)["Ways to break the server, each tried"]
    assert (
        shown == f"**{len(found) - 1} of {len(found)}** as expected, 2 requests without an answer"
    )


def test_attention_row_compares_with_the_fastest_of_the_others(results):
    file = results / "temporal_attention_nvidia_h100_80gb_hbm3.csv"
    with file.open(newline="") as lines:
        table = list(csv.DictReader(lines))
    for row in table:
        row["p50_ms"] = {"reelserve": "1.0", "compiled": "2.5"}.get(row["provider"], "9.0")
    with file.open("w", newline="") as lines:
        writer = csv.DictWriter(lines, list(table[0]))
        writer.writeheader()
        writer.writerows(table)
    shown = rows(results)["Temporal attention, with norm and rotary embedding"]
    assert shown.endswith("2.5× as fast as PyTorch's best")
