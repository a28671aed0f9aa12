"""Trains the denoiser by flow matching on encoded clips.

Run as `python -m reelserve.training.train_denoiser`, after the autoencoder; on several GPUs as
`torchrun --nproc-per-node 2 -m reelserve.training.train_denoiser`. Batch size and pool are then
those of each GPU.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from reelserve.models.denoiser import WORLD, SpaceTimeDenoiser
from reelserve.models.loading import load_component, save_component
from reelserve.models.video_vae import VideoVAE
from reelserve.training.arguments import WORLD_CHECKPOINT, settings_from, training_parser
from reelserve.training.muon import StackedMuon
from reelserve.training.pool import Pool, build_pool
from reelserve.training.ranks import Ranks
from reelserve.training.run import Run, Schedule, write_settings
from reelserve.training.scene.labels import empty_labels


@dataclass(frozen=True)
class DenoiserSettings:
    """Settings of the run.

    Args:
        image_share: Share of the run, at its start, that learns single latent frames: what things
            look like, from many more of them in the same time.
        images_per_clip: Single frames in a batch for each clip of a later batch.
        object_weight: Loss weight of a latent that an object covers, over one of the ground.
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
    image_share: float = 0.35
    images_per_clip: int = 16
    object_weight: float = 3.0
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
    module: nn.Module,
    latents: Tensor,
    noise: Tensor,
    sigma: Tensor,
    rows: Tensor,
    *,
    weight: Tensor | None = None,
    first_frame: int = 0,
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
        weight: `[B, 1, F, H, W]`, of the errors; even where left out.
        first_frame: See the denoiser.
    """
    device = latents.device.type
    level = sigma[:, None, None, None, None]
    noisy = (1 - level) * latents + level * noise
    mask = torch.ones(rows.shape[:2], device=rows.device)
    with torch.autocast(device, torch.bfloat16, enabled=device == "cuda"):
        velocity = module(noisy, 1000 * sigma, rows, mask, first_frame)
    error = (velocity - (noise - latents)).square()
    if weight is None:
        return error.mean()
    return (weight * error.mean(1, keepdim=True)).sum() / weight.sum()


def blend_labels(rows: Tensor, settings: DenoiserSettings) -> Tensor:
    """Label rows `[B, 4, E]`, some of which say nothing or a little of another's."""
    b = len(rows)
    share = settings.label_blend * torch.rand(b, 1, 1, device=rows.device).square()
    rows = rows + share * (rows.roll(1, 0) - rows)
    dropped = torch.rand(b, 1, 1, device=rows.device) < settings.label_dropout
    return rows * ~dropped


def train_denoiser(
    run: Run, module: SpaceTimeDenoiser, pool: Pool, settings: DenoiserSettings, device: str
) -> None:
    """Takes every step that is left of the run: single frames first, then clips."""
    if device == "cuda":
        # Equal blocks share one compiled graph: seconds to compile instead of minutes.
        for block in module.blocks:
            block.compile(dynamic=False)
    for step in run.steps():
        torch.manual_seed(run.batch_seed())
        # The same on all GPUs, so that none waits for another.
        rng = np.random.default_rng((settings.seed, step))
        if run.progress < settings.image_share:
            frame = int(rng.integers(pool.latents.shape[2]))
            count = settings.images_per_clip * settings.batch_size
            loss = _batch_loss(module, pool, settings, count, slice(frame, frame + 1))
            run.update(loss, image_loss=loss)
        elif step % settings.short_every == 0:
            # Clips shorter than the window; not compiled, since every length would be anew.
            frames = slice(0, int(rng.choice(settings.short_frames)))
            with torch.compiler.set_stance("force_eager"):
                run.update(_batch_loss(module, pool, settings, settings.batch_size, frames))
        else:
            loss = _batch_loss(module, pool, settings, settings.batch_size, slice(0, None))
            run.update(loss, full_length_loss=loss)


def _batch_loss(
    module: SpaceTimeDenoiser, pool: Pool, settings: DenoiserSettings, count: int, frames: slice
) -> Tensor:
    latents, covered, rows = pool.batch(count, frames)
    return velocity_loss(
        module,
        latents,
        torch.randn_like(latents),
        shifted_levels(count, settings.sigma_shift, latents.device),
        blend_labels(rows, settings),
        weight=1 + (settings.object_weight - 1) * covered.sqrt(),
        first_frame=frames.start,
    )


def _pool(folder: Path, settings: DenoiserSettings, ranks: Ranks, device: str) -> Pool:
    vae = load_component(folder, VideoVAE).to(device)
    vae.encoder.to(memory_format=torch.channels_last_3d)
    seed = (settings.seed, ranks.rank)
    return build_pool(vae, settings.pool_clips, seed, device, settings.pool_chunk)


def _module(init: Path | None) -> SpaceTimeDenoiser:
    """The denoiser in a folder, or a fresh one that reads labels of the world."""
    if init:
        return load_component(init, SpaceTimeDenoiser)
    width = empty_labels(1).rows().shape[-1]
    return SpaceTimeDenoiser(replace(WORLD, text_dim=width))


def main() -> None:
    """Trains, saves the averaged weights to the checkpoint's `transformer/`."""
    names = ("steps", "max_seconds", "batch_size", "pool_clips", "pool_chunk", "seed")
    names += ("learning_rate_scale",)
    parser = training_parser(__doc__, DenoiserSettings, "transformer", names)
    parser.add_argument("--vae", type=Path, default=WORLD_CHECKPOINT / "vae")
    args = parser.parse_args()
    settings = settings_from(args, DenoiserSettings)
    ranks = Ranks.join(args.device)
    torch.manual_seed(settings.seed)
    pool = _pool(args.vae, settings, ranks, args.device)
    module = _module(args.init).to(args.device).train()
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
