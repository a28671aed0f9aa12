import json
import sys
from pathlib import Path

import numpy as np
import pytest

from reelserve.models.frame_consistency import FrameConsistency
from reelserve.models.loading import save_component
from reelserve.models.video_vae import VideoVAE, VideoVAEConfig
from reelserve.training import measure_consistency
from reelserve.training.measure_consistency import add_flicker, measure_clip, summarise


def test_disturb_changes_brightness_and_adds_noise() -> None:
    clip = np.full((20, 32, 32, 3), 128, np.uint8)
    values = add_flicker(clip, np.random.default_rng(1)) / 255
    means = values.mean(axis=(1, 2, 3)) / (128 / 255)
    assert 0.01 < np.ptp(means) <= 0.062
    assert values[0].std() == pytest.approx(0.02, rel=0.05)


def test_measure_clip_reports_less_flicker_on_a_still_clip() -> None:
    clip = np.full((12, 32, 32, 3), 128, np.uint8)
    before, after, change, undisturbed = measure_clip(
        clip, clip - 1, add_flicker(clip, np.random.default_rng(1)), FrameConsistency()
    )
    assert after < 0.2 * before
    assert change > 3
    assert undisturbed == 0


def test_summarise_weighs_clips_by_their_flicker() -> None:
    summary = summarise([(1.0, 0.5, 1.0, 0.0), (3.0, 0.5, 2.0, -0.2)])
    assert summary["flicker_reduction"] == pytest.approx(0.75)
    assert summary["psnr_change_db"] == pytest.approx(1.5)
    assert summary["worst_clip"]["flicker_reduction"] == pytest.approx(0.5)
    assert summary["worst_clip"]["undisturbed_psnr_change_db"] == pytest.approx(-0.2)


def test_main_keeps_the_other_figures(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    save_component(
        VideoVAE(VideoVAEConfig(16, (8, 8, 8), (1, 1, 1), (1, 1, 1), (4, 4), patch=4)),
        tmp_path / "vae",
    )
    results = tmp_path / "evaluation.json"
    results.write_text(json.dumps({"held_out": {"all_right": 0.9}}))
    options = ["--checkpoint", tmp_path, "--out", results, "--num-clips", "1", "--device", "cpu"]
    monkeypatch.setattr(sys, "argv", ["measure_consistency", *map(str, options)])
    measure_consistency.main()
    written = json.loads(results.read_text())
    assert written["held_out"] == {"all_right": 0.9}
    assert {"flicker_reduction", "commit"} <= set(written["frame_consistency"])
