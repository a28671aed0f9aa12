"""Training pairs of the denoiser: encoded clips and labels, held on the device."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor

from reelserve.models.video_vae import VideoVAE
from reelserve.training.scene.labelling import draw_labels
from reelserve.training.scene.labels import Labels, join_labels
from reelserve.training.scene.rendering import render
from reelserve.training.scene.scenes import sample_scenes

LABELS_PER_CLIP = 4
"""Labels of one clip, which differ in what they leave unsaid."""


@dataclass(frozen=True)
class Pool:
    """`P` clips with `LABELS_PER_CLIP` labels each.

    Args:
        latents: `[P, C, F, H, W]` fp16, unit variance.
        covered: `[P, 1, F, H, W]` fp16 in [0, 1], share of each latent that objects cover.
        labels: `P · LABELS_PER_CLIP` labels, those of one clip together.
    """

    latents: Tensor
    covered: Tensor
    labels: Labels

    def batch(self, size: int, frames: slice = slice(None)) -> tuple[Tensor, Tensor, Tensor]:
        """Draws clips, or the same frames of each.

        Returns:
            Latents `[B, C, F, H, W]`, what covers them `[B, 1, F, H, W]` and the rows of one label
            of each `[B, 4, E]`, fp32.
        """
        device = self.latents.device
        clips = torch.randint(len(self.latents), (size,), device=device)
        which = torch.randint(LABELS_PER_CLIP, (size,), device=device)
        rows = self.labels[clips * LABELS_PER_CLIP + which].rows()
        return self.latents[clips, :, frames].float(), self.covered[clips, :, frames].float(), rows


@torch.no_grad()
def build_pool(vae: VideoVAE, clips: int, seed: tuple[int, ...], device: str, chunk: int) -> Pool:
    """Renders, labels and encodes `clips` training scenes, `chunk` at once, none held out."""
    latents, covered, labels = [], [], []
    for start in range(0, clips, chunk):
        rng = np.random.default_rng((*seed, start))
        scenes = sample_scenes(chunk, rng)
        frames, coverage = render(scenes, device)
        patch = vae.config.spatial_compression
        covered.append(F.avg_pool3d(coverage, (4, patch, patch)).half())
        with torch.autocast(device, torch.bfloat16, enabled=device == "cuda"):
            clips_last = (2 * frames - 1).to(memory_format=torch.channels_last_3d)
            latents.append(vae.encode(clips_last).half().contiguous())
        drawn = [draw_labels(scenes, rng) for _ in range(LABELS_PER_CLIP)]
        labels.append(
            Labels(
                torch.stack([one.objects for one in drawn], 1).flatten(0, 1),
                torch.stack([one.scene for one in drawn], 1).flatten(0, 1),
            )
        )
    return Pool(torch.cat(latents), torch.cat(covered), join_labels(labels).to(device))
