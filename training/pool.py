"""Training pairs of the denoiser: encoded clips and encoded captions, held on the device."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from reelserve.models.text_encoder import encode_texts
from reelserve.models.video_vae import VideoVAE
from reelserve.training.captions import write_caption
from reelserve.training.scenes import sample_scenes
from reelserve.training.world import render

MAX_CAPTION_TOKENS = 48
CAPTIONS_PER_CLIP = 2


@dataclass(frozen=True)
class Pool:
    """`P` clips with `K` captions each.

    Args:
        latents: `[P, C, F, H, W]` fp16, unit variance.
        embeds: `[P, K, L, E]` fp16.
        mask: `[P, K, L]` bool.
        null_embeds: `[1, L, E]` fp16, of the empty text.
        null_mask: `[1, L]` bool.
    """

    latents: Tensor
    embeds: Tensor
    mask: Tensor
    null_embeds: Tensor
    null_mask: Tensor

    def batch(self, size: int) -> tuple[Tensor, Tensor, Tensor]:
        """Draws latents `[B, C, F, H, W]`, embeddings and mask of one caption each."""
        device = self.latents.device
        rows = torch.randint(len(self.latents), (size,), device=device)
        which = torch.randint(self.embeds.shape[1], (size,), device=device)
        return self.latents[rows].float(), self.embeds[rows, which], self.mask[rows, which]


@torch.no_grad()
def build_pool(
    vae: VideoVAE,
    clips: int,
    seed: tuple[int, ...],
    two_object_share: float,
    device: str,
    chunk: int,
) -> Pool:
    """Renders, captions and encodes `clips` training scenes, `chunk` at once, none held out."""
    latents, texts = [], []
    for start in range(0, clips, chunk):
        rng = np.random.default_rng((*seed, start))
        scenes = sample_scenes(chunk, rng, held_out=False, two_object_share=two_object_share)
        frames, _ = render(scenes, device)
        with torch.autocast(device, torch.bfloat16, enabled=device == "cuda"):
            clips_last = (2 * frames - 1).to(memory_format=torch.channels_last_3d)
            latents.append(vae.encode(clips_last).half().contiguous())
        for scene in range(chunk):
            texts += [write_caption(scenes, scene, rng).text for _ in range(CAPTIONS_PER_CLIP)]
    embeds, mask = encode_captions([*texts, ""], device)
    count = len(texts) // CAPTIONS_PER_CLIP
    return Pool(
        latents=torch.cat(latents),
        embeds=embeds[:-1].reshape(count, CAPTIONS_PER_CLIP, *embeds.shape[1:]),
        mask=mask[:-1].reshape(count, CAPTIONS_PER_CLIP, -1),
        null_embeds=embeds[-1:],
        null_mask=mask[-1:],
    )


def encode_captions(texts: list[str], device: str) -> tuple[Tensor, Tensor]:
    """Embeddings `[N, L, E]` fp16 and mask `[N, L]` bool.

    Raises:
        ValueError: If a caption has more than `MAX_CAPTION_TOKENS` tokens.
    """
    embeds, mask = [], []
    for start in range(0, len(texts), 8192):
        part, part_mask = encode_texts(
            texts[start : start + 8192], MAX_CAPTION_TOKENS, batch_size=2048, device=device
        )
        embeds.append(part.half())
        mask.append(part_mask.bool())
    whole = torch.cat(mask)
    # Longer captions were cut: the last position of such a row is a real token.
    if whole[:, -1].any():
        longest = texts[int(whole[:, -1].float().argmax())]
        raise ValueError(f"caption over {MAX_CAPTION_TOKENS - 1} tokens: {longest!r}")
    return torch.cat(embeds), whole
