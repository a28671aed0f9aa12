from __future__ import annotations

import csv

from reelserve.tools.figures import command as docs_command
from reelserve.tools.figures.kernels import denoiser_step, temporal_attention_table

WHERE = {
    "git_sha": "0123456789abcdef",
    "gpu": "Some GPU",
    "driver": "1",
    "torch": "2",
    "triton": "3",
}
SHAPE = {"B": "1", "F": "31", "S": "384", "N": "20", "D": "128", "dtype": "bf16"}
STEP = {"model": "3B", "B": "1", "F": "31", "H": "16", "W": "24", "dtype": "bf16"}


def attention_row(provider: str, p50_ms: float, **changed: str) -> dict[str, str]:
    row = {**WHERE, **SHAPE, "qk_norm": "True", "rope": "True", "provider": provider}
    return {**row, "p50_ms": str(p50_ms), "share_of_copy": "0.914", **changed}


def step_row(attention: str, compiled: bool, p50_ms: float) -> dict[str, str]:
    timed = {"attention": attention, "compiled": str(compiled), "p50_ms": str(p50_ms)}
    return {**WHERE, **STEP, **timed}


def test_temporal_attention_names_the_best_of_the_others():
    rows = [attention_row("reelserve", 0.1), attention_row("compiled", 0.25)]
    text = temporal_attention_table([*rows, attention_row("sdpa_strided", 0.3)])
    assert (
        "| Some GPU | 1 31 384 20 128 bf16 | yes | 0.100 | 91.4% | compiled, 0.250 ms | 2.50× |"
        in text
    )
    assert "driver 1, torch 2, triton 3, commit 0123456789." in text


def test_temporal_attention_stands_alone_where_nothing_else_ran():
    text = temporal_attention_table(
        [attention_row("reelserve", 0.1, qk_norm="False", rope="False")]
    )
    assert "| no | 0.100 | 91.4% | – | – |" in text


def test_denoiser_step_leaves_out_what_has_no_pair():
    rows = [step_row("fused", True, 100), step_row("sdpa", True, 125), step_row("fused", False, 9)]
    text = denoiser_step(rows)
    assert "| Some GPU | 3B | 1 31 16 24 | yes | 125.0 | 100.0 | 1.25× |" in text
    assert "| no |" not in text


def test_docs_reads_a_file_for_each_gpu(tmp_path):
    (tmp_path / "docs" / "results").mkdir(parents=True)
    (tmp_path / "kernels").mkdir()
    page = tmp_path / "kernels" / "README.md"
    page.write_text("<!-- figures: temporal_attention -->\n<!-- end of figures -->\n")
    docs_command.fill_pages(tmp_path, write=True)
    assert docs_command.NOT_MEASURED in page.read_text()
    for gpu in ("a", "b"):
        with (tmp_path / "docs" / "results" / f"temporal_attention_{gpu}.csv").open("w") as file:
            row = attention_row("reelserve", 0.1, gpu=f"GPU {gpu}")
            writer = csv.DictWriter(file, row)
            writer.writeheader()
            writer.writerow(row)
    docs_command.fill_pages(tmp_path, write=True)
    assert "| GPU a |" in page.read_text() and "| GPU b |" in page.read_text()
