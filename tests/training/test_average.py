import json
from pathlib import Path

import numpy as np
import pytest
import torch

from reelserve.models.denoiser import DenoiserConfig, SpaceTimeDenoiser
from reelserve.models.loading import load_component, save_component
from reelserve.training import average
from reelserve.training.scoring import Score

TINY = DenoiserConfig(16, 384, width=32, num_heads=2, num_blocks=1, num_refiner_blocks=1)


def test_average_is_each_end_and_the_middle() -> None:
    old, new = {"a": torch.tensor([1.0, 2.0])}, {"a": torch.tensor([3.0, -2.0])}
    assert torch.equal(average.average(old, new, 0.0)["a"], old["a"])
    assert torch.equal(average.average(old, new, 1.0)["a"], new["a"])
    assert average.average(old, new, 0.25)["a"].tolist() == [1.5, 1.0]


def test_main_keeps_the_share_that_scores_best(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for name in ("old", "new"):
        save_component(SpaceTimeDenoiser(TINY), tmp_path / name, torch.float32)
    old, new = (load_component(tmp_path / name, SpaceTimeDenoiser) for name in ("old", "new"))

    class Models:
        denoiser = SpaceTimeDenoiser(TINY)

    def score(models: type[Models], *_: object) -> Score:
        """Best three quarters of the way from one to the other."""
        weight = "blocks.0.spatial_attention.to_out.weight"
        wanted = old.state_dict()[weight] * 0.25 + new.state_dict()[weight] * 0.75
        distance = (models.denoiser.state_dict()[weight] - wanted).abs().max().item()
        return Score(right=np.zeros(1, bool), all_right=1 - distance, ci95=(0, 1), per_attribute={})

    monkeypatch.setattr(average, "load_models", lambda *_: Models)
    monkeypatch.setattr(average, "score_prompts", score)
    folders = [f"--{name}={tmp_path / name}" for name in ("old", "new", "out")]
    monkeypatch.setattr("sys.argv", ["average", *folders, "--num-prompts=2", "--device=cpu"])
    average.main()
    assert json.loads((tmp_path / "out" / "average.json").read_text())["chosen"] == 0.75
    kept = load_component(tmp_path / "out", SpaceTimeDenoiser)
    expected = average.average(old.state_dict(), new.state_dict(), 0.75)
    for name, value in kept.state_dict().items():
        torch.testing.assert_close(value, expected[name], atol=2e-3, rtol=2e-3)
