"""Trains the video autoencoder on rendered clips.

Run as `python -m reelserve.training.train_autoencoder`.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from reelserve.models.loading import load_component, save_component
from reelserve.models.video_vae import WORLD, VideoVAE
from reelserve.training.arguments import settings_from, training_parser
from reelserve.training.ranks import Ranks
from reelserve.training.run import Run, Schedule, write_settings
from reelserve.training.scene.rendering import render
from reelserve.training.scene.scenes import sample_scenes

ANCHOR_MARGIN = 2
"""Latent frames at each end of a clip that are free to move."""


@dataclass(frozen=True)
class AutoencoderSettings:
    """Settings of the run.

    Args:
        edge_weights: Loss weights of the first and last frames of a clip, from its ends inwards.
        clip_frames: Rendered clips are cut to pieces of this length, which has more ends to
            learn from; a multiple of 4 that divides 80.
        decoder_only: Whether the encoder is left as it is.
        keep_latents: Whether latents away from a clip's ends are held near to what they were.
        anchor_weight: Loss weight of their change, in units of their variance.
    """

    seed: int = 2
    steps: int = 20_000
    max_seconds: float = 360.0
    batch_size: int = 8
    learning_rate: float = 1e-3
    object_weight: float = 3.0
    edge_weights: tuple[float, ...] = (16.0, 4.0, 3.0, 2.0)
    clip_frames: int = 40
    decoder_only: bool = False
    keep_latents: bool = False
    anchor_weight: float = 0.05
    latent_noise: float = 0.05
    latent_penalty: float = 1e-5
    statistics_clips: int = 512


def reconstruct(module: VideoVAE, frames: Tensor, noise: float) -> tuple[Tensor, Tensor]:
    """Encodes and decodes; noise on the latents makes the decoder forgive a denoiser's errors.

    Returns:
        The reconstruction of `frames` and the latents.
    """
    latents = module.encoder(frames)
    spread = latents.detach().float().std(dim=(0, 2, 3, 4), keepdim=True)
    noisy = latents + (noise * spread).to(latents.dtype) * torch.randn_like(latents)
    return module.decoder(noisy), latents


def reconstruction_loss(
    output: Tensor, frames: Tensor, covered: Tensor, settings: AutoencoderSettings
) -> tuple[Tensor, Tensor]:
    """Weighted error, heavier on objects and on the first and last frames.

    Returns:
        The loss, and the plain mean squared error on the [0, 1] scale.
    """
    error = output.float() - frames
    weight = 1 + settings.object_weight * covered
    # The ends have a neighbour less to be drawn from.
    ends = torch.ones(frames.shape[2], device=frames.device)
    weights = torch.tensor(settings.edge_weights, device=frames.device)
    ends[: len(weights)], ends[-len(weights) :] = weights, weights.flip(0)
    weight = weight * ends[:, None, None]
    loss = (weight * (error.abs() * 0.1 + error.square())).mean()
    return loss, error.square().mean() / 4


def moved_latents(latents: Tensor, anchor: Tensor, module: VideoVAE) -> Tensor:
    """Mean squared change of the latents away from a clip's ends, in units of their variance.

    Args:
        latents: `[B, C, F, H, W]`, not normalised, of the encoder in training.
        anchor: Latents of the encoder that a denoiser was trained on, same shape.
        module: Autoencoder whose spread is the unit.
    """
    change = (latents.float() - anchor.float()) / module.latents_std
    return change[:, :, ANCHOR_MARGIN:-ANCHOR_MARGIN].square().mean()


@torch.no_grad()
def measure_latents(module: VideoVAE, settings: AutoencoderSettings, device: str) -> None:
    """Sets the mean and spread that normalise latents, from fresh training scenes."""
    rng = np.random.default_rng((settings.seed, 1 << 30))
    latents = []
    for _ in range(max(1, settings.statistics_clips // settings.batch_size)):
        scenes = sample_scenes(settings.batch_size, rng)
        frames, _ = render(scenes, device)
        latents.append(module.encoder(2 * frames - 1).float())
    stacked = torch.cat(latents)
    module.latents_mean.copy_(stacked.mean(dim=(0, 2, 3, 4))[:, None, None, None])
    module.latents_std.copy_(stacked.std(dim=(0, 2, 3, 4))[:, None, None, None])


def build_module(init: Path | None, settings: AutoencoderSettings, device: str) -> VideoVAE:
    """A fresh autoencoder, or the one in `init`.

    Raises:
        ValueError: If latents are to be kept and there are no weights to start from, or clips
            are cut so short that nothing lies away from their ends.
    """
    if init is None and (settings.decoder_only or settings.keep_latents):
        raise ValueError("--decoder-only and --keep-latents need --init, whose latents are kept")
    if settings.keep_latents and settings.clip_frames <= 8 * ANCHOR_MARGIN:
        raise ValueError(
            f"--clip-frames is {settings.clip_frames}; with --keep-latents it must be more than "
            f"{8 * ANCHOR_MARGIN}"
        )
    module = load_component(init, VideoVAE).train() if init else VideoVAE(WORLD)
    if settings.decoder_only:
        # The latents stay what a denoiser was trained on.
        module.encoder.requires_grad_(False)
    module = module.to(device)
    # cuDNN's 3-D convolutions are fastest with channels last.
    module.encoder.to(memory_format=torch.channels_last_3d)
    module.decoder.to(memory_format=torch.channels_last_3d)
    return module


def cut(frames: Tensor, length: int) -> Tensor:
    """Cuts clips `[B, C, F, H, W]` to `[B·F/length, C, length, H, W]`."""
    b, c, f, h, w = frames.shape
    pieces = frames.reshape(b, c, f // length, length, h, w).transpose(1, 2)
    return pieces.reshape(-1, c, length, h, w)


def train_autoencoder(
    run: Run, module: VideoVAE, settings: AutoencoderSettings, device: str
) -> None:
    """Takes every step that is left of the run."""
    forward = torch.compile(reconstruct) if device == "cuda" else reconstruct
    # What the denoiser knows is kept, but for the ends.
    anchor = copy.deepcopy(module.encoder).eval() if settings.keep_latents else None
    for _ in run.steps():
        rng = np.random.default_rng(run.batch_seed())
        scenes = sample_scenes(settings.batch_size, rng)
        frames, covered = (cut(clip, settings.clip_frames) for clip in render(scenes, device))
        frames = (2 * frames - 1).to(memory_format=torch.channels_last_3d)
        with torch.autocast(device, torch.bfloat16, enabled=device == "cuda"):
            output, latents = forward(module, frames, settings.latent_noise)
        loss, mse = reconstruction_loss(output, frames, covered, settings)
        loss = loss + settings.latent_penalty * latents.float().square().mean()
        terms = {"psnr_db": -10 * mse.detach().log10()}
        if anchor is not None:
            with torch.no_grad(), torch.autocast(device, torch.bfloat16, enabled=device == "cuda"):
                known = anchor(frames)
            terms["moved"] = moved_latents(latents, known, module)
            loss = loss + settings.anchor_weight * terms["moved"]
        run.update(loss, **terms)


def main() -> None:
    """Trains, saves the averaged weights to the checkpoint's `vae/`."""
    names = ("steps", "max_seconds", "batch_size", "statistics_clips", "clip_frames")
    names += ("decoder_only", "keep_latents")
    args = training_parser(__doc__, AutoencoderSettings, "vae", names).parse_args()
    settings = settings_from(args, AutoencoderSettings)
    ranks = Ranks.join(args.device)
    torch.manual_seed(settings.seed)
    module = build_module(args.init, settings, args.device)
    optimizer = torch.optim.AdamW(
        [parameter for parameter in module.parameters() if parameter.requires_grad],
        lr=settings.learning_rate,
        betas=(0.9, 0.99),
        weight_decay=1e-4,
    )
    schedule = Schedule(settings.steps, 200, 0.9, settings.max_seconds)
    run = Run(
        args.run_folder,
        module,
        [optimizer],
        schedule,
        ema_decay=0.998,
        seed=settings.seed,
        ranks=ranks,
    )
    train_autoencoder(run, module, settings, args.device)
    if ranks.is_first:
        run.use_average()
        if not (settings.decoder_only or settings.keep_latents):
            measure_latents(module, settings, args.device)
        save_component(module, args.out)
        write_settings(args.out, settings, init=args.init, **run.summary())
    ranks.leave()


if __name__ == "__main__":
    main()
