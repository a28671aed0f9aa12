from __future__ import annotations

import csv
import json
import re

import numpy as np
import pytest
from PIL import Image

from reelserve.loadtest.plan import OPEN
from reelserve.loadtest.plots import save_png
from reelserve.loadtest.records import ERROR, Measurement, RequestRecord
from reelserve.loadtest.report import html, sweep_figure
from reelserve.loadtest.results import as_json, outcome, write_csv
from reelserve.loadtest.verdict import Goals
from tests.loadtest.samples import INFO, ORIGIN, ended, measurement, plan


def test_as_json_holds_what_pages_and_scripts_read():
    results = json.loads(json.dumps(as_json(ended()), allow_nan=False))
    assert results["verdict"] == "pass"
    assert (results["videos_per_s"], results["p50_s"], results["p95_s"]) == (0.125, 16.0, 16.0)
    assert results["error_share"] == 0
    assert results["normalised_to"] == {"clip_s": 10.0, "per": "machine (CPU)", "gpus": 0}
    assert [row["concurrency"] for row in results["sweep"]] == [1, 2]
    assert results["sweep"][1]["littles_law_ratio"] == 1.0
    assert results["knee"] == {"concurrency": 2, "saturated": False}
    assert results["request"]["name"] == "text_to_video 256x256 80f 8 steps"
    assert {"commit", "date", "hardware", "versions", "locust"} <= set(results)


def test_as_json_holds_no_infinity_when_every_request_failed():
    requests = tuple(
        RequestRecord(r.number, r.due_s, r.sent_s, r.ended_s, ERROR, "a stage failed")
        for r in measurement().requests
    )
    broken = Measurement(measurement().windows, requests, ((0.0, 0),), {"a stage failed": 15})
    found = outcome(plan(), broken, Goals(), INFO, 0, ORIGIN)
    results = json.loads(json.dumps(as_json(found), allow_nan=False))
    assert (results["verdict"], results["p95_s"], results["error_share"]) == ("fail", None, 1.0)
    assert "a stage failed" in html(found)


def test_outcome_raises_when_nothing_was_measured():
    nothing = Measurement((), (), ((0.0, 0),), {}, "the level of 1 did not end within 60 s")
    with pytest.raises(ValueError, match="nothing was measured: the level of 1"):
        outcome(plan(), nothing, Goals(), INFO, 0, ORIGIN)


def test_measurement_survives_json():
    assert Measurement.from_json(measurement().to_json()) == measurement()


@pytest.mark.parametrize(("goal", "word"), [(0.1, "Pass"), (0.9, "Fail")])
def test_html_tells_the_verdict_and_loads_nothing(goal, word):
    page = html(ended(videos_per_s=goal))
    assert f">{word}</b>" in page
    assert "This is a closed loop." in page
    assert "per machine" in page
    assert page.count("<svg") == 3
    assert "not seen to saturate" in page
    loaded = re.findall(r"""(?:src|href)\s*=\s*["'](?!#)[^"']*|url\((?!#)|@import""", page)
    assert loaded == []


def test_html_shows_markup_in_messages_as_text():
    found = ended()
    found.measurement.errors["<script>alert(1)</script>"] = 1
    assert "<script>" not in html(found)


def test_html_explains_an_open_loop():
    found = outcome(plan(loop=OPEN, levels=(0.1, 0.2)), measurement(), Goals(), INFO, 4, ORIGIN)
    page = html(found)
    assert "This is an open loop." in page
    assert "one of 4 GPUs" in page
    assert as_json(found)["sweep"][0]["rate_per_s"] == 1


def test_sweep_plot_is_a_picture(tmp_path):
    save_png(sweep_figure(ended()), tmp_path / "new" / "sweep.png")
    picture = np.asarray(Image.open(tmp_path / "new" / "sweep.png").convert("RGB"))
    assert picture.shape[1] > 1000
    assert len(np.unique(picture.reshape(-1, 3), axis=0)) > 20


def test_csv_holds_a_row_for_every_level_and_request(tmp_path):
    write_csv(ended(), tmp_path)
    with (tmp_path / "sweep.csv").open(newline="") as file:
        levels = list(csv.DictReader(file))
    with (tmp_path / "requests.csv").open(newline="") as file:
        requests = list(csv.DictReader(file))
    assert [row["concurrency"] for row in levels] == ["1", "2"]
    assert float(levels[0]["upsampler_compute_s"]) == 3.0
    assert len(requests) == 15
    assert [row["counted_at"] for row in requests[:2]] == ["", "1"]
