"""Draws clips from captions in torch, with the sampler that serving uses."""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import Tensor

from reelserve.models.denoiser import SpaceTimeDenoiser
from reelserve.models.video_vae import VideoVAE
from reelserve.pipeline.scheduler import flow_match_sigmas


@torch.no_grad()
def sample_latents(
    denoiser: SpaceTimeDenoiser,
    text: tuple[Tensor, Tensor],
    null_text: tuple[Tensor, Tensor],
    *,
    num_inference_steps: int,
    guidance_scale: float,
    latent_frames: int,
    latent_side: int,
    seed: int,
    shift: float = 1.0,
) -> Tensor:
    """Integrates the flow from noise to data.

    Args:
        denoiser: Predicts `noise − data`.
        text: Embeddings `[B, L, E]` and mask `[B, L]`.
        null_text: Those of the empty text, one row.
        num_inference_steps: Euler steps.
        guidance_scale: 1 disables guidance.
        latent_frames: `F`.
        latent_side: `H` and `W`.
        seed: Seed of the noise.
        shift: Shift of the noise schedule.

    Returns:
        `[B, C, F, H, W]` fp32.
    """
    embeds, mask = text
    b, device = len(embeds), embeds.device
    shape = (b, denoiser.config.in_channels, latent_frames, latent_side, latent_side)
    generator = torch.Generator(device=device).manual_seed(seed)
    x = torch.randn(shape, generator=generator, device=device)
    guided = guidance_scale > 1.0
    if guided:
        embeds = torch.cat([embeds, null_text[0].expand(b, -1, -1)])
        mask = torch.cat([mask, null_text[1].expand(b, -1)])
    sigmas = flow_match_sigmas(num_inference_steps, shift)
    for sigma, following in pairwise(sigmas):
        rows = torch.cat([x, x]) if guided else x
        timestep = torch.full((len(rows),), 1000 * float(sigma), device=device)
        velocity = denoiser(rows, timestep, embeds, mask)
        if guided:
            conditional, unconditional = velocity.chunk(2)
            velocity = unconditional + guidance_scale * (conditional - unconditional)
        x = x + float(following - sigma) * velocity
    return x


@torch.no_grad()
def decode_frames(vae: VideoVAE, latents: Tensor) -> Tensor:
    """Decodes to `[B, 3, F, H, W]` in [0, 1], in steps of 1/255 like served frames."""
    frames = (vae.decode(latents) + 1) / 2
    return (frames.clamp(0, 1) * 255).round() / 255
