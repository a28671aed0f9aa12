"""Draws clips from labels in torch, with the sampler that serving uses."""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import Tensor

from reelserve.models.denoiser import SpaceTimeDenoiser
from reelserve.models.video_vae import VideoVAE
from reelserve.pipeline.scheduler import flow_match_sigmas

LATENT_FRAMES, LATENT_SIDE = 20, 8
"""A clip of 10 s has so many latent frames, rows and columns."""


@torch.no_grad()
def sample_latents(
    denoiser: SpaceTimeDenoiser,
    text: Tensor,
    noise: Tensor,
    *,
    num_inference_steps: int,
    guidance_scale: float,
    shift: float = 1.0,
) -> Tensor:
    """Integrates the flow from noise to data.

    Args:
        denoiser: Predicts `noise − data`.
        text: `[B, 4, E]`, rows of a label or of a text encoder.
        noise: `[B, C, F, H, W]` fp32.
        num_inference_steps: Euler steps.
        guidance_scale: 1 disables guidance.
        shift: Shift of the noise schedule.

    Returns:
        `[B, C, F, H, W]` fp32.
    """
    x, device = noise, noise.device
    guided = guidance_scale > 1.0
    if guided:
        # Of nothing, an encoder gives zeros.
        text = torch.cat([text, torch.zeros_like(text)])
    mask = torch.ones(text.shape[:2], device=device)
    for sigma, following in pairwise(flow_match_sigmas(num_inference_steps, shift)):
        rows = torch.cat([x, x]) if guided else x
        timestep = torch.full((len(rows),), 1000 * float(sigma), device=device)
        velocity = denoiser(rows, timestep, text, mask)
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
