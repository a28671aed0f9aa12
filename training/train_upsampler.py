"""Trains the upsampler on rendered frames as the autoencoder gives them back.

Run as `python -m reelserve.training.train_upsampler`, after the autoencoder.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor

from reelserve.models.loading import load_component, save_component
from reelserve.models.upsampler import WORLD, Upsampler
from reelserve.models.video_vae import VideoVAE
from reelserve.training.arguments import WORLD_CHECKPOINT, settings_from, training_parser
from reelserve.training.ranks import Ranks
from reelserve.training.run import Run, Schedule, write_settings
from reelserve.training.sampling import decode_frames
from reelserve.training.scene.rendering import SIDE, render
from reelserve.training.scene.scenes import sample_scenes


@dataclass(frozen=True)
class UpsamplerSettings:
    """Settings of the run.

    Args:
        clips: Rendered and decoded before the run.
        frames: First frames of a clip.
        kept: Frames of these, evenly spaced, that are learned from.
        edge_weight: Weight of the error of differences between neighbouring pixels.
    """

    seed: int = 6
    steps: int = 6000
    max_seconds: float = 60.0
    batch_size: int = 32
    learning_rate: float = 1e-3
    clips: int = 256
    frames: int = 40
    kept: int = 5
    edge_weight: float = 0.5


@torch.no_grad()
def make_frames(vae: VideoVAE, settings: UpsamplerSettings, device: str) -> tuple[Tensor, Tensor]:
    """Decoded frames `[N, 3, 128, 128]` and the same rendered at twice the size, uint8."""
    small, large = [], []
    rng = np.random.default_rng(settings.seed)
    for _ in range(settings.clips):
        scenes = sample_scenes(1, rng)
        frames, _ = render(scenes, device, frames=settings.frames)
        decoded = decode_frames(vae, vae.encode(2 * frames - 1))
        wanted, _ = render(scenes, device, frames=settings.frames, side=WORLD.drawn_scale * SIDE)
        which = torch.linspace(0, settings.frames - 1, settings.kept).long().to(device)
        for kept, clip in ((small, decoded), (large, wanted)):
            kept.append((clip[0, :, which].transpose(0, 1) * 255).round().byte())
    return torch.cat(small), torch.cat(large)


def upsampling_loss(output: Tensor, wanted: Tensor, edge_weight: float) -> Tensor:
    """Mean absolute error of pixels, and of differences between neighbours."""
    loss = (output - wanted).abs().mean()
    for dim in (2, 3):
        loss = loss + edge_weight * (output.diff(dim=dim) - wanted.diff(dim=dim)).abs().mean()
    return loss


def main() -> None:
    """Trains, saves the averaged weights to the checkpoint's `upsampler/`."""
    names = ("steps", "max_seconds", "clips")
    parser = training_parser(__doc__, UpsamplerSettings, "upsampler", names)
    parser.add_argument("--vae", type=Path, default=WORLD_CHECKPOINT / "vae")
    args = parser.parse_args()
    settings = settings_from(args, UpsamplerSettings)
    torch.manual_seed(settings.seed)
    vae = load_component(args.vae, VideoVAE).to(args.device)
    small, large = make_frames(vae, settings, args.device)
    module = load_component(args.init, Upsampler) if args.init else Upsampler(WORLD)
    module = module.to(args.device).train().requires_grad_(True)
    run = Run(
        args.run_folder,
        module,
        [torch.optim.AdamW(module.parameters(), lr=settings.learning_rate)],
        Schedule(settings.steps, 100, 0.5, settings.max_seconds),
        ema_decay=0.998,
        seed=settings.seed,
        ranks=Ranks(),
    )
    for _ in run.steps():
        torch.manual_seed(run.batch_seed())
        rows = torch.randint(len(small), (settings.batch_size,), device=args.device)
        wanted = large[rows].float() / 255
        output = module(small[rows].float() / 255)
        mse = F.mse_loss(output.detach().clamp(0, 1), wanted)
        loss = upsampling_loss(output, wanted, settings.edge_weight)
        run.update(loss, psnr_db=-10 * mse.log10())
    run.use_average()
    save_component(module, args.out)
    write_settings(args.out, settings, init=args.init, **run.summary())


if __name__ == "__main__":
    main()
