"""Trains the denoiser by flow matching on encoded clips.

Run as `python -m reelserve.training.train_denoiser`, after the autoencoder; on several GPUs as
`torchrun --nproc-per-node 2 -m reelserve.training.train_denoiser`. Batch size and pool are then
those of each GPU.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor, nn

from reelserve.models.denoiser import BUNDLED, SpaceTimeDenoiser
from reelserve.models.loading import load_component, save_component
from reelserve.models.video_vae import VideoVAE
from reelserve.training.muon import StackedMuon
from reelserve.training.pool import Pool, build_pool
from reelserve.training.ranks import Ranks
from reelserve.training.run import Run, Schedule, write_settings
from reelserve.training.scene.labels import empty_labels


@dataclass(frozen=True)
class DenoiserSettings:
    """Settings of the run.

    Args:
        label_dropout: Share of the labels replaced by nothing, which guidance needs.
        label_blend: Largest share of another label that is mixed into one, since a text encoder
            is not always sure.
    """

    seed: int = 3
    steps: int = 40_000
    max_seconds: float = 720.0
    batch_size: int = 96
    muon_learning_rate: float = 1.5e-3
    adamw_learning_rate: float = 1.0e-3
    learning_rate_scale: float = 1.0
    weight_decay: float = 0.01
    pool_clips: int = 16_384
    pool_chunk: int = 128
    label_dropout: float = 0.08
    label_blend: float = 0.1
    sigma_shift: float = 4.0
    short_every: int = 20
    short_frames: tuple[int, ...] = (4, 8, 12, 16)


def make_optimizers(module: nn.Module, settings: DenoiserSettings) -> list[torch.optim.Optimizer]:
    """Muon for the matrices inside blocks, AdamW for everything else."""
    matrices, others = [], []
    for name, parameter in module.named_parameters():
        inside = name.startswith(("blocks.", "refiner."))
        is_matrix = parameter.ndim == 2 and not name.endswith("modulation_table")
        (matrices if inside and is_matrix else others).append(parameter)
    muon_rate = settings.learning_rate_scale * settings.muon_learning_rate
    adamw_rate = settings.learning_rate_scale * settings.adamw_learning_rate
    return [
        StackedMuon(matrices, lr=muon_rate, weight_decay=settings.weight_decay),
        torch.optim.AdamW(others, lr=adamw_rate, betas=(0.9, 0.98), weight_decay=0.0),
    ]


def shifted_levels(count: int, shift: float, device: torch.device | str) -> Tensor:
    """Noise levels `[B]` in [0, 1], even and then shifted towards noise as a sampler's are."""
    even = torch.rand(count, device=device)
    return shift * even / (1 + (shift - 1) * even)


def velocity_loss(
    module: nn.Module, latents: Tensor, noise: Tensor, sigma: Tensor, rows: Tensor
) -> Tensor:
    """Flow matching: the mean squared error of `noise − data` between the two.

    Latent frames repeat each other, so it takes much noise to hide where things are: most of the
    training goes to where that is decided, and some to the very first step.

    Args:
        module: The denoiser.
        latents: `[B, C, F, H, W]`, data.
        noise: Same shape.
        sigma: `[B]`, share of the noise.
        rows: `[B, 4, E]`, labels.
    """
    device = latents.device.type
    level = sigma[:, None, None, None, None]
    noisy = (1 - level) * latents + level * noise
    mask = torch.ones(rows.shape[:2], device=rows.device)
    with torch.autocast(device, torch.bfloat16, enabled=device == "cuda"):
        velocity = module(noisy, 1000 * sigma, rows, mask)
    return (velocity - (noise - latents)).square().mean()


def draw_batch(pool: Pool, settings: DenoiserSettings) -> tuple[Tensor, Tensor]:
    """A batch of latents and label rows, some of which say nothing or a little of another's."""
    latents, rows = pool.batch(settings.batch_size)
    b = len(rows)
    share = settings.label_blend * torch.rand(b, 1, 1, device=rows.device).square()
    rows = rows + share * (rows.roll(1, 0) - rows)
    dropped = torch.rand(b, 1, 1, device=rows.device) < settings.label_dropout
    return latents, rows * ~dropped


def train_denoiser(
    run: Run, module: SpaceTimeDenoiser, pool: Pool, settings: DenoiserSettings, device: str
) -> None:
    """Takes every step that is left of the run."""
    if device == "cuda":
        # Equal blocks share one compiled graph: seconds to compile instead of minutes.
        for block in module.blocks:
            block.compile(dynamic=False)
    for step in run.steps():
        torch.manual_seed(run.batch_seed())
        latents, rows = draw_batch(pool, settings)
        sigma = shifted_levels(len(latents), settings.sigma_shift, latents.device)
        noise = torch.randn_like(latents)
        if step % settings.short_every == settings.short_every - 1:
            # Clips shorter than the window; not compiled, since every length would be anew.
            turn = (step // settings.short_every) % len(settings.short_frames)
            frames = settings.short_frames[turn]
            with torch.compiler.set_stance("force_eager"):
                loss = velocity_loss(
                    module, latents[:, :, :frames], noise[:, :, :frames], sigma, rows
                )
                run.update(loss)
        else:
            loss = velocity_loss(module, latents, noise, sigma, rows)
            run.update(loss, full_length_loss=loss)


def main() -> None:
    """Trains, saves the averaged weights to the checkpoint's `transformer/`."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--run-folder", type=Path, default=Path("build/training/transformer"))
    parser.add_argument("--vae", type=Path, default=Path("checkpoints/bundled/vae"))
    parser.add_argument("--init", type=Path, help="start from the weights in this folder")
    parser.add_argument("--out", type=Path, default=Path("checkpoints/bundled/transformer"))
    parser.add_argument("--steps", type=int, default=DenoiserSettings.steps)
    parser.add_argument("--max-seconds", type=float, default=DenoiserSettings.max_seconds)
    parser.add_argument("--batch-size", type=int, default=DenoiserSettings.batch_size)
    parser.add_argument("--pool-clips", type=int, default=DenoiserSettings.pool_clips)
    parser.add_argument("--pool-chunk", type=int, default=DenoiserSettings.pool_chunk)
    parser.add_argument("--seed", type=int, default=DenoiserSettings.seed)
    parser.add_argument(
        "--learning-rate-scale",
        type=float,
        default=DenoiserSettings.learning_rate_scale,
        metavar="FACTOR",
    )
    parser.add_argument("--device", default="cuda")
    args = parser.parse_args()
    settings = DenoiserSettings(
        seed=args.seed,
        learning_rate_scale=args.learning_rate_scale,
        steps=args.steps,
        max_seconds=args.max_seconds,
        batch_size=args.batch_size,
        pool_clips=args.pool_clips,
        pool_chunk=args.pool_chunk,
    )
    ranks = Ranks.join(args.device)
    torch.manual_seed(settings.seed)
    vae = load_component(args.vae, VideoVAE).to(args.device)
    vae.encoder.to(memory_format=torch.channels_last_3d)
    pool = build_pool(
        vae,
        settings.pool_clips,
        (settings.seed, ranks.rank),
        args.device,
        chunk=settings.pool_chunk,
    )
    if args.init:
        module = load_component(args.init, SpaceTimeDenoiser).to(args.device).train()
    else:
        width = empty_labels(1).rows().shape[-1]
        module = SpaceTimeDenoiser(replace(BUNDLED, text_dim=width)).to(args.device)
    run = Run(
        args.run_folder,
        module,
        make_optimizers(module, settings),
        Schedule(settings.steps, 100, 0.5, settings.max_seconds),
        ema_decay=0.999,
        seed=settings.seed,
        ranks=ranks,
    )
    train_denoiser(run, module, pool, settings, args.device)
    if ranks.is_first:
        run.use_average()
        save_component(module, args.out)
        write_settings(args.out, settings, init=args.init, **run.summary())
    ranks.leave()


if __name__ == "__main__":
    main()
