"""Distils the denoiser to few steps without guidance.

Run as `python -m reelserve.training.distil_denoiser`, after `train_denoiser`. The trained denoiser,
with guidance and many steps, turns noise into clips. The student learns the straight way between
the two, first where the straight line leads, then where its own few steps have led it.

Source: straight ways as in Rectified Flow (arXiv 2209.03003); training on one's own steps as in
DAgger (arXiv 1011.0686).
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from reelserve.models.denoiser import SpaceTimeDenoiser
from reelserve.models.loading import load_component, save_component
from reelserve.models.video_vae import WORLD as WORLD_VAE
from reelserve.pipeline.scheduler import flow_match_sigmas
from reelserve.training.arguments import settings_from, training_parser
from reelserve.training.ranks import Ranks
from reelserve.training.run import Run, Schedule, write_settings
from reelserve.training.sampling import LATENT_FRAMES, LATENT_SIDE, sample_latents
from reelserve.training.scene.labelling import draw_labels
from reelserve.training.scene.labels import Labels, join_labels
from reelserve.training.scene.scenes import sample_scenes
from reelserve.training.train_denoiser import (
    DenoiserSettings,
    make_optimizers,
    shifted_levels,
    velocity_loss,
)


@dataclass(frozen=True)
class DistilSettings:
    """Settings of the run.

    Args:
        pairs: Noise and the clip that the teacher makes of it, on each GPU.
        teacher_steps: Steps of the teacher.
        guidance_scale: The teacher's guidance.
        teacher_shift: Shift of the teacher's schedule.
        shift: Shift of the student's schedule.
        steps_drawn: Numbers of steps that the student is trained for, the usual one repeated.
        own_share: Share of the batches that start where the student's own steps have led.
        pairs_seconds: Making pairs ends after so much time.
    """

    seed: int = 5
    steps: int = 20_000
    max_seconds: float = 240.0
    batch_size: int = 96
    learning_rate_scale: float = 0.35
    weight_decay: float = 0.01
    pairs: int = 12_288
    pairs_seconds: float = 75.0
    pair_chunk: int = 48
    teacher_steps: int = 10
    guidance_scale: float = 2.5
    teacher_shift: float = 5.0
    shift: float = 5.0
    steps_drawn: tuple[int, ...] = (4, 4, 4, 4, 4, 8, 2, 1)
    own_share: float = 0.5


@dataclass(frozen=True)
class Pairs:
    """What a teacher makes of noise.

    Args:
        noise: `[P, C, F, H, W]` fp16.
        latents: Same shape, what became of it.
        labels: `P` labels.
    """

    noise: Tensor
    latents: Tensor
    labels: Labels

    def batch(self, size: int) -> tuple[Tensor, Tensor, Tensor]:
        """Noise and latents `[B, C, F, H, W]` fp32, and label rows `[B, 4, E]`."""
        rows = torch.randint(len(self.noise), (size,), device=self.noise.device)
        return self.noise[rows].float(), self.latents[rows].float(), self.labels[rows].rows()


@torch.no_grad()
def make_pairs(
    teacher: SpaceTimeDenoiser, settings: DistilSettings, rank: int, device: str
) -> Pairs:
    """Draws clips from noise with the teacher's many steps and guidance, none held out."""
    noises, latents, labels = [], [], []
    begin = time.monotonic()
    for start in range(0, settings.pairs, settings.pair_chunk):
        if start and time.monotonic() - begin > settings.pairs_seconds:
            break
        rng = np.random.default_rng((settings.seed, rank, start))
        drawn = draw_labels(sample_scenes(settings.pair_chunk, rng), rng).to(device)
        shape = (len(drawn), WORLD_VAE.latent_channels, LATENT_FRAMES, LATENT_SIDE, LATENT_SIDE)
        generator = torch.Generator(device=device).manual_seed(int(rng.integers(1 << 62)))
        noise = torch.randn(shape, generator=generator, device=device)
        with torch.autocast(device, torch.bfloat16, enabled=device == "cuda"):
            made = sample_latents(
                teacher,
                drawn.rows(),
                noise,
                num_inference_steps=settings.teacher_steps,
                guidance_scale=settings.guidance_scale,
                shift=settings.teacher_shift,
            )
        noises.append(noise.half())
        latents.append(made.half())
        labels.append(drawn)
    return Pairs(torch.cat(noises), torch.cat(latents), join_labels(labels))


@torch.no_grad()
def own_states(
    student: SpaceTimeDenoiser, noise: Tensor, rows: Tensor, sigmas: list[float], taken: int
) -> Tensor:
    """Where `taken` steps of the student lead from noise."""
    x = noise
    mask = torch.ones(rows.shape[:2], device=rows.device)
    device = noise.device.type
    for sigma, following in pairwise(sigmas[: taken + 1]):
        timestep = torch.full((len(x),), 1000 * sigma, device=x.device)
        with torch.autocast(device, torch.bfloat16, enabled=device == "cuda"):
            velocity = student(x, timestep, rows, mask)
        x = x + (following - sigma) * velocity
    return x


def own_loss(
    student: SpaceTimeDenoiser,
    pairs: tuple[Tensor, Tensor, Tensor],
    settings: DistilSettings,
    rng: np.random.Generator,
) -> Tensor:
    """The error of the way from where the student stands to where the teacher ended.

    The steps of one schedule weigh alike; the error is in units of velocity.
    """
    noise, latents, rows = pairs
    steps = int(rng.choice(settings.steps_drawn))
    sigmas = [float(sigma) for sigma in flow_match_sigmas(steps, settings.shift)]
    taken = int(rng.integers(steps))
    x = own_states(student, noise, rows, sigmas, taken)
    sigma = sigmas[taken]
    timestep = torch.full((len(x),), 1000 * sigma, device=x.device)
    mask = torch.ones(rows.shape[:2], device=rows.device)
    device = noise.device.type
    with torch.autocast(device, torch.bfloat16, enabled=device == "cuda"):
        velocity = student(x, timestep, rows, mask)
    return (velocity - (x - latents) / sigma).square().mean()


def distil(
    run: Run, student: SpaceTimeDenoiser, pairs: Pairs, settings: DistilSettings, device: str
) -> None:
    """Takes every step that is left of the run."""
    for step in run.steps():
        torch.manual_seed(run.batch_seed())
        # Of one mind on all GPUs, so that none waits for another that takes more steps.
        rng = np.random.default_rng((settings.seed, step))
        batch = pairs.batch(settings.batch_size)
        if rng.random() < settings.own_share:
            loss = own_loss(student, batch, settings, rng)
            run.update(loss, own_loss=loss)
        else:
            noise, latents, rows = batch
            sigma = shifted_levels(len(noise), settings.shift, device)
            loss = velocity_loss(student, latents, noise, sigma, rows)
            run.update(loss, straight_loss=loss)


def main() -> None:
    """Distils, saves the averaged weights to the checkpoint's `transformer/`."""
    names = ("steps", "max_seconds", "batch_size", "seed", "pairs", "pairs_seconds", "pair_chunk")
    names += ("teacher_steps", "guidance_scale", "learning_rate_scale")
    parser = training_parser(__doc__, DistilSettings, "transformer", names)
    parser.set_defaults(run_folder=Path("build/training/distilled"))
    parser.add_argument("--teacher", type=Path, default=Path("build/training/teacher"))
    args = parser.parse_args()
    settings = settings_from(args, DistilSettings)
    ranks = Ranks.join(args.device)
    torch.manual_seed(settings.seed)
    teacher = load_component(args.teacher, SpaceTimeDenoiser).to(args.device)
    student = load_component(args.init or args.teacher, SpaceTimeDenoiser).to(args.device).train()
    if args.device == "cuda":
        for module in (teacher, student):
            for block in module.blocks:
                block.compile(dynamic=False)
    pairs = make_pairs(teacher, settings, ranks.rank, args.device)
    del teacher
    rates = DenoiserSettings(
        learning_rate_scale=settings.learning_rate_scale, weight_decay=settings.weight_decay
    )
    run = Run(
        args.run_folder,
        student,
        make_optimizers(student, rates),
        Schedule(settings.steps, 50, 0.6, settings.max_seconds),
        ema_decay=0.998,
        seed=settings.seed,
        ranks=ranks,
    )
    distil(run, student, pairs, settings, args.device)
    if ranks.is_first:
        run.use_average()
        save_component(student, args.out)
        write_settings(
            args.out, settings, teacher=args.teacher, pairs_made=len(pairs.noise), **run.summary()
        )
    ranks.leave()


if __name__ == "__main__":
    main()
