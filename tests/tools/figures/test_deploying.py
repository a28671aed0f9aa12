"""The tables of docs/deploy.md."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from reelserve.client.cli import OK, USAGE
from reelserve.tools.figures import command as docs_command
from reelserve.tools.figures.deploying import EXAMPLE_USD_PER_HOUR, image, sizing

ROOT = Path(__file__).parents[3]
RESULTS = ROOT / "docs" / "results"
LIFE = {
    "ready_s": 3.0,
    "first_clip_s": 9.0,
    "recovered_s": 4.0,
    "clip_after_kill_s": 10.0,
    "stopped_s": 60.0,
    "in_flight": 12,
    "drawn": 12,
}
IMAGE: dict[str, Any] = {
    "image_bytes": 769_400_000,
    "base_bytes": 234_000_000,
    "build_s": 240.4,
    "container": [LIFE, {**LIFE, "recovered_s": 8.0}, {**LIFE, "recovered_s": 3.5}],
    "systemd": [{**LIFE, "drawn": 11}],
    "request": {"num_frames": 80, "fps": 8},
    "versions": {"podman": "4.3.1", "runc": "1.1.5", "systemd": "252", "torch": "2"},
    "commit": "0123456789abcdef",
    "cpu": "Some CPU",
    "cores": 2,
    "date": "2026-11-28",
}
MAX_RECOVERY_S = 10.0


def cells(text: str, part: str) -> list[str]:
    (row,) = [line for line in text.splitlines() if part in line]
    return [cell.strip() for cell in row.strip("|").split("|")]


def test_image_shows_median_and_longest_of_its_rounds():
    shown = image(IMAGE)
    assert cells(shown, "Container")[1:] == [
        *("3.0, 3.0", "9.0, 9.0", "4.0, 8.0", "10.0, 10.0", "60.0, 60.0"),
        "36 of 36",
    ]
    assert cells(shown, "systemd unit")[-1] == "11 of 12"
    assert "769 MB, of which 234" in shown and "from nothing in 240 s" in shown
    assert "podman 4.3.1, runc 1.1.5, systemd 252," in shown and "torch" not in shown


def test_image_says_nothing_of_a_build_that_was_not_made():
    assert "built" not in image({name: IMAGE[name] for name in IMAGE if name != "build_s"})


def test_server_was_back_in_time_and_drew_every_clip():
    found = json.loads((RESULTS / "image.json").read_text())
    for life in (*found["container"], *found["systemd"]):
        assert life["recovered_s"] <= MAX_RECOVERY_S
        assert life["drawn"] == life["in_flight"] and life["exit_status"] == 0


def test_sizing_has_a_row_for_every_model_of_every_gpu_and_one_for_the_processor():
    benches = [json.loads(file.read_text()) for file in RESULTS.glob("bench_gpu_*.json")]
    rows = sizing(RESULTS).split("\n\n")[0].splitlines()[2:]
    assert len(rows) == sum(len(bench["models"]) for bench in benches) + 1


@pytest.mark.parametrize("usd", [EXAMPLE_USD_PER_HOUR, 7.5])
def test_cents_a_clip_are_what_the_formula_below_the_table_says(usd):
    bench = json.loads((RESULTS / "bench_gpu_nvidia_h100_80gb_hbm3.json").read_text())
    for model in bench["models"]:
        row = cells(sizing(RESULTS, usd), f"{bench['engine']}, bf16 | `{model['model']}`,")
        assert row[3] == f"{model['videos_per_s']:.3f}"
        assert row[-1] == f"{100 * usd / 3600 / model['videos_per_s']:.3f}"


def test_docs_prints_the_sizing_at_a_price_and_writes_nothing(capsys):
    assert docs_command.run(["--root", str(ROOT), "--sizing", "2.5"]) == OK
    assert capsys.readouterr().out == f"{sizing(RESULTS, 2.5)}\n"


@pytest.mark.parametrize("price", ["0", "-1", "free", "nan"])
def test_docs_refuses_a_price_that_is_none(price, capsys):
    with pytest.raises(SystemExit) as stopped:
        docs_command.run([f"--sizing={price}"])
    assert stopped.value.code == USAGE
    assert "above 0" in capsys.readouterr().err
