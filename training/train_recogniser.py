"""Trains the recogniser on real renders.

Run as `python -m reelserve.training.train_recogniser`.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor

from reelserve.models.loading import save_component
from reelserve.training.ranks import Ranks
from reelserve.training.recogniser import BUNDLED, Recogniser, SceneReading
from reelserve.training.run import Run, Schedule, write_settings
from reelserve.training.scenes import Scenes, sample_scenes
from reelserve.training.world import render


@dataclass(frozen=True)
class RecogniserSettings:
    """Settings of the run."""

    seed: int = 1
    steps: int = 6000
    max_seconds: float = 150.0
    batch_size: int = 96
    learning_rate: float = 1.5e-3
    weight_decay: float = 0.02
    two_object_share: float = 0.7
    twin_share: float = 0.15


def targets(scenes: Scenes, device: str) -> dict[str, Tensor]:
    """Index tensors of a batch of scenes: `[B, 2]` for objects, `[B]` for the scene."""
    names = ("shape", "colour", "size", "motion", "two_objects", "background")
    return {name: torch.as_tensor(getattr(scenes, name), device=device) for name in names}


def reading_loss(reading: SceneReading, wanted: dict[str, Tensor]) -> Tensor:
    """Cross-entropy of every attribute; an object's are read at its colour.

    Twins share a colour: nothing is asked of them but that they are more than one.
    """
    colour, two = wanted["colour"], wanted["two_objects"].float()
    rows = torch.arange(len(colour), device=colour.device)
    single = 1 - two * (colour[:, 0] == colour[:, 1]).float()
    present = torch.zeros_like(reading.present)
    present[rows, colour[:, 1]] = two * single
    present[rows, colour[:, 0]] = single
    loss = 4 * F.binary_cross_entropy_with_logits(reading.present, present)
    loss = loss + F.cross_entropy(reading.background, wanted["background"])
    for which, weight in ((0, single), (1, two * single)):
        for name in ("shape", "size", "motion"):
            logits = getattr(reading, name)[rows, colour[:, which]]
            losses = F.cross_entropy(logits, wanted[name][:, which], reduction="none")
            loss = loss + (losses * weight).mean()
    return loss


def disturb(frames: Tensor) -> Tensor:
    """Noise, blur and brightness like those of a decoder, so that reading survives them."""
    b = len(frames)
    chance = torch.rand(4, b, 1, 1, 1, 1, device=frames.device)
    blurred = F.avg_pool3d(frames, (1, 3, 3), 1, (0, 1, 1), count_include_pad=False)
    frames = frames + (chance[0] < 0.5) * 0.8 * chance[1] * (blurred - frames)
    frames = frames + 0.05 * chance[2] * torch.randn_like(frames)
    return (frames * (0.94 + 0.12 * chance[3])).clamp(0, 1)


def main() -> None:
    """Trains, saves the averaged weights to the checkpoint's `recogniser/`."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--run-folder", type=Path, default=Path("build/training/recogniser"))
    parser.add_argument("--out", type=Path, default=Path("checkpoints/bundled/recogniser"))
    parser.add_argument("--steps", type=int, default=RecogniserSettings.steps)
    parser.add_argument("--max-seconds", type=float, default=RecogniserSettings.max_seconds)
    parser.add_argument("--batch-size", type=int, default=RecogniserSettings.batch_size)
    parser.add_argument("--device", default="cuda")
    args = parser.parse_args()
    settings = RecogniserSettings(
        steps=args.steps, max_seconds=args.max_seconds, batch_size=args.batch_size
    )
    ranks = Ranks.join(args.device)
    torch.manual_seed(settings.seed)
    module = Recogniser(BUNDLED).to(args.device)
    optimizer = torch.optim.AdamW(
        module.parameters(), lr=settings.learning_rate, weight_decay=settings.weight_decay
    )
    schedule = Schedule(settings.steps, 100, 0.6, settings.max_seconds)
    run = Run(
        args.run_folder,
        module,
        [optimizer],
        schedule,
        ema_decay=0.998,
        seed=settings.seed,
        ranks=ranks,
    )
    for _ in run.steps():
        rng = np.random.default_rng(run.batch_seed())
        # A measuring instrument must know what it measures: it alone sees every combination.
        scenes = sample_scenes(
            settings.batch_size,
            rng,
            held_out=None,
            two_object_share=settings.two_object_share,
            twin_share=settings.twin_share,
        )
        frames, _ = render(scenes, args.device)
        with torch.autocast(args.device, torch.bfloat16, enabled=args.device == "cuda"):
            reading = module(disturb(frames))
        run.update(reading_loss(reading, targets(scenes, args.device)))
    if ranks.is_first:
        run.use_average()
        save_component(module, args.out)
        write_settings(args.out, settings, **run.summary())
    ranks.leave()


if __name__ == "__main__":
    main()
