import dataclasses
from pathlib import Path

import numpy as np
import torch

from reelserve.models.loading import load_component
from reelserve.training.recogniser import BUNDLED, Recogniser
from reelserve.training.scenes import COLOURS, MOTIONS, sample_scenes
from reelserve.training.scoring import score
from reelserve.training.train_recogniser import disturb, reading_loss, targets
from reelserve.training.world import render

WEIGHTS = Path(__file__).parents[2] / "checkpoints/bundled/recogniser"


@torch.no_grad()
def test_bundled_recogniser_reads_fresh_renders():
    rng = np.random.default_rng(11)
    scenes = sample_scenes(12, rng, held_out=False, two_object_share=0.5)
    frames, _ = render(scenes)
    result = score(load_component(WEIGHTS, Recogniser)(frames), scenes)
    assert result.all_right >= 0.9


def test_reading_loss_falls_in_a_few_steps_on_one_batch():
    torch.manual_seed(0)
    module = Recogniser(BUNDLED)
    optimizer = torch.optim.AdamW(module.parameters(), lr=1e-3)
    rng = np.random.default_rng(0)
    scenes = sample_scenes(2, rng, held_out=None, two_object_share=1.0)
    frames, _ = render(scenes)
    losses = []
    for _ in range(6):
        reading = module(disturb(frames))
        assert reading.motion.shape == (2, len(COLOURS), len(MOTIONS))
        loss = reading_loss(reading, targets(scenes, "cpu"))
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
    assert losses[-1] < losses[0]


def test_reading_loss_asks_for_no_single_object_when_there_are_twins():
    rng = np.random.default_rng(1)
    scenes = sample_scenes(4, rng, held_out=None, two_object_share=0.0, twin_share=1.0)
    wanted = targets(scenes, "cpu")
    reading = Recogniser(BUNDLED)(render(scenes)[0])
    absent, seen = (torch.full_like(reading.present, value) for value in (-9.0, 9.0))
    quiet = dataclasses.replace(reading, present=absent)
    loud = dataclasses.replace(reading, present=seen)
    assert reading_loss(quiet, wanted) < reading_loss(loud, wanted)
    changed = dataclasses.replace(quiet, shape=reading.shape + torch.randn_like(reading.shape))
    assert reading_loss(changed, wanted) == reading_loss(quiet, wanted)
