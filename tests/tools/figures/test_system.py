"""The page of the design pattern: its tables, the figures in its sentences, and what they claim."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest

from reelserve.client.cli import FAILURE
from reelserve.tools.figures import command as docs_command
from reelserve.tools.figures.system import (
    GPU_FILE,
    MODELS,
    PRICES_USD_PER_HOUR,
    figures_in_sentences,
    system_components,
    system_cost,
)

ROOT = Path(__file__).parents[3]
RESULTS = ROOT / "docs" / "results"
PAGE = (ROOT / "docs" / "system.md").read_text(encoding="utf-8")
CODE = re.compile(r"^```.*?^```$|`[^`]*`", re.MULTILINE | re.DOTALL)
DECIMAL = re.compile(r"(?<![\w.-])\d+\.\d+(?![\w.])")
GOALS = {"0.1"}
"""Decimals that are neither measured nor published: the ends of the pattern's ranges."""
GB = 10**9


def gpu() -> dict[str, Any]:
    found: dict[str, Any] = json.loads((RESULTS / GPU_FILE).read_text())
    return found


def model(name: str) -> dict[str, Any]:
    return next(one for one in gpu()["models"] if one["model"] == name)


def cells(text: str, first: str) -> list[str]:
    (row,) = [line for line in text.splitlines() if line.startswith(f"| {first} |")]
    return [cell.strip() for cell in row.strip("|").split("|")]


@pytest.mark.parametrize("name", MODELS)
def test_cost_of_a_clip_is_rent_by_clips_of_an_hour(name):
    found = cells(system_cost(RESULTS), f"`{name}`")
    clips_an_hour = 3600 * model(name)["videos_per_s"]
    alone = 3600 * next(
        level["videos_per_s"] for level in model(name)["levels"] if level["concurrency"] == 1
    )
    cents = [100 * price / clips_an_hour for price in PRICES_USD_PER_HOUR]
    expected = [*cents, 100 * PRICES_USD_PER_HOUR[1] / alone]
    assert found[2:] == [f"{cent:.3f}" for cent in expected]


def test_prices_are_those_that_the_page_gives_with_their_sources():
    (sentence,) = [part for part in PAGE.split("\n") if part.startswith("**Cost of a clip.**")]
    assert all(f"${price:.2f}" in sentence for price in PRICES_USD_PER_HOUR)
    assert sentence.count("](https://") == 2


def test_components_add_up_to_nearly_a_clip():
    table = system_components(RESULTS)
    rows = [line.strip("|").split("|") for line in table.splitlines() if line.startswith("| ")]
    seconds = [[float(cell) for cell in row[2:]] for row in rows[2:]]
    for *parts, clip in zip(*seconds, strict=True):
        # On the CPU the clip is a median and the stages are means.
        assert 0.9 * clip <= sum(parts) <= 1.05 * clip


def test_video_diffusion_model_is_sampler_and_denoiser():
    found = cells(system_components(RESULTS), "Video diffusion model, all steps")
    stages = model("ltx-2b")["stages_s"]
    assert found[2] == f"{stages['video_diffusion'] + stages['denoiser']:.3f}"


def test_figures_in_sentences_are_those_of_the_files():
    found = figures_in_sentences(RESULTS)
    serving = json.loads((RESULTS / "serving.json").read_text())
    ltx = model("ltx-2b")
    assert found["ltx_2b_videos_per_s"] == f"{ltx['videos_per_s']:.2f}"
    assert found["ltx_2b_served_gib"] == f"{ltx['peak_memory_bytes'] / 2**30:.1f}"
    assert found["cancel_longest_s"] == f"{max(one['max_s'] for one in serving['cancels']):.2f}"
    assert found["same_bytes"].startswith("0 of ")


def test_page_claims_what_the_files_still_show():
    """Sentences that compare must be read again when one of these fails."""
    figures = figures_in_sentences(RESULTS)
    for name in MODELS:
        assert 0.1 <= model(name)["videos_per_s"] <= 1, "within the range of throughput"
        assert model(name)["p95_s"] < 60, "better than the range of latency"
    served = {name: model(name)["peak_memory_bytes"] for name in MODELS}
    assert served["ltx-2b"] < 50 * GB < min(served["bundled-3b"], served["bundled-10b"])
    assert model("bundled-3b")["in_process"]["peak_memory_bytes"] < 50 * GB
    assert model("bundled-10b")["in_process"]["peak_memory_bytes"] > 50 * GB
    exponents = {key: float(text) for key, text in figures.items() if key.endswith("_exponent")}
    factorised = [value for key, value in exponents.items() if key.startswith("bundled")]
    assert max(factorised) <= 1 < exponents["ltx_2b_frames_exponent"]
    assert 1 < exponents["ltx_2b_pixels_exponent"] < 2
    assert float(figures["cpu_at_4"]) < 1.1 * float(figures["cpu_at_1"])
    assert float(figures["bundled_at_4"]) > 2 * float(figures["bundled_at_1"])
    faults = json.loads((RESULTS / "faults.json").read_text())
    # The page names none that was not.
    assert all(row["as_expected"] for row in faults)


def test_every_decimal_of_the_page_is_generated_or_stands_beside_its_source():
    text = docs_command.IN_SENTENCE.sub("", docs_command.BLOCK.sub("", CODE.sub("", PAGE)))
    bare = [line for line in text.splitlines() if "](https://" not in line]
    assert {number for line in bare for number in DECIMAL.findall(line)} <= GOALS


def test_docs_fills_figures_in_sentences_and_is_stable(tmp_path):
    shutil.copytree(RESULTS, tmp_path / "docs" / "results")
    page = tmp_path / "README.md"
    page.write_text("It draws <!-- figure: ltx_2b_videos_per_s -->9<!-- end --> videos, not 9.\n")
    assert docs_command.fill_pages(tmp_path, write=True) == [page]
    shown = f"{model('ltx-2b')['videos_per_s']:.2f}"
    assert f"-->{shown}<!-- end --> videos, not 9." in page.read_text()
    assert docs_command.fill_pages(tmp_path, write=True) == []


def test_docs_fails_when_no_figure_has_that_name(tmp_path, capsys):
    shutil.copytree(RESULTS, tmp_path / "docs" / "results")
    (tmp_path / "README.md").write_text("<!-- figure: ltx_2b_smell --><!-- end -->\n")
    assert docs_command.run(["--root", str(tmp_path)]) == FAILURE
    assert "'ltx_2b_smell'" in capsys.readouterr().err


def test_docs_says_not_measured_when_the_file_of_a_table_is_missing(tmp_path):
    page = tmp_path / "README.md"
    page.write_text("<!-- figures: system_cost -->\n<!-- end of figures -->\n")
    docs_command.fill_pages(tmp_path, write=True)
    assert docs_command.NOT_MEASURED in page.read_text()
