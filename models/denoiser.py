"""The factorised space-time diffusion transformer that predicts the velocity of noisy latents.

Each block attends within a frame (spatial), across frames at each location (temporal) and to
the text, so its cost is linear in the number of frames. Hidden states keep one layout,
`[B, F, S, C]` with `S = H·W` locations, from the first block to the last.

Source: factorised blocks as in Latte (arXiv 2401.03048), shared adaptive layer norm as in
PixArt-α (arXiv 2310.00426); differs by QK normalisation, rotary embedding over frames and a
text refiner.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

from reelserve.kernels.launch import HEAD_DIMS
from reelserve.kernels.temporal_attention import temporal_attention, temporal_attention_ref

_FREQUENCY_DIM = 256
RMS_NORM_EPS = 1e-6


@dataclass(frozen=True)
class DenoiserConfig:
    """Size of a denoiser.

    Args:
        in_channels: Latent channels `C`.
        text_dim: Width `E` of the text encoder's token embeddings.
        width: Hidden width, a multiple of `2 · num_heads` and of 4.
        num_heads: Attention heads `N`.
        num_blocks: Transformer blocks.
        num_refiner_blocks: Self-attention blocks over the text alone.
        mlp_ratio: Hidden width of an MLP over `width`.
        text_tokens: Leading tokens of the text that are read; 0 reads them all. Our text encoder
            puts all that it has understood into its first few.
    """

    in_channels: int
    text_dim: int
    width: int
    num_heads: int
    num_blocks: int
    num_refiner_blocks: int
    mlp_ratio: int = 4
    text_tokens: int = 0

    def __post_init__(self) -> None:
        if self.width % (2 * self.num_heads) or self.width % 4:
            raise ValueError(
                f"width {self.width}: must be a multiple of 4 and of 2 * num_heads "
                f"({2 * self.num_heads})"
            )


WORLD = DenoiserConfig(
    in_channels=32,
    text_dim=468,
    width=448,
    num_heads=7,
    num_blocks=10,
    num_refiner_blocks=1,
    text_tokens=4,
)
SIZE_3B = DenoiserConfig(
    in_channels=128, text_dim=4096, width=2560, num_heads=20, num_blocks=23, num_refiner_blocks=1
)
SIZE_10B = DenoiserConfig(
    in_channels=128, text_dim=4096, width=4096, num_heads=32, num_blocks=29, num_refiner_blocks=1
)


def sinusoid(positions: Tensor, dim: int, max_period: float = 10_000.0) -> Tensor:
    """Sinusoidal embedding of real positions.

    Args:
        positions: Any shape.
        dim: Even width of the embedding.
        max_period: Longest wavelength over 2π.

    Returns:
        `[*positions.shape, dim]`, fp32.
    """
    half = dim // 2
    exponents = torch.arange(half, device=positions.device, dtype=torch.float32) / half
    angles = positions.float()[..., None] * torch.exp(-math.log(max_period) * exponents)
    return torch.cat([angles.cos(), angles.sin()], dim=-1)


def rotary_tables(num_frames: int, head_dim: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """Cosine and sine tables of the rotary embedding over frames.

    Returns:
        Two `[F, D/2]` fp32 tensors.
    """
    exponents = torch.arange(head_dim // 2, device=device, dtype=torch.float32) / (head_dim // 2)
    frames = torch.arange(num_frames, device=device, dtype=torch.float32)
    angles = frames[:, None] * torch.exp(-math.log(100.0) * exponents)
    return angles.cos(), angles.sin()


class RMSNorm(nn.Module):
    """Root-mean-square norm of the last dimension in fp32, with a learned scale."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(dim))

    def forward(self, x: Tensor) -> Tensor:
        wide = x.float()
        scale = torch.rsqrt(wide.square().mean(-1, keepdim=True) + RMS_NORM_EPS)
        return (wide * scale * self.weight).to(x.dtype)


class _SelfAttention(nn.Module):
    """Weights of a self-attention with packed projections and normalised queries and keys."""

    def __init__(self, width: int, num_heads: int) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.to_qkv = nn.Linear(width, 3 * width)
        self.to_out = nn.Linear(width, width)
        self.norm_q = RMSNorm(width // num_heads)
        self.norm_k = RMSNorm(width // num_heads)


class SpatialAttention(_SelfAttention):
    """Self-attention over the locations of each frame. `[B, F, S, C]` in and out."""

    def forward(self, x: Tensor) -> Tensor:
        b, f, s, c = x.shape
        qkv = self.to_qkv(x).reshape(b * f, s, 3, self.num_heads, c // self.num_heads)
        # Four dimensions: SDPA's fused paths take no more.
        q, k, v = qkv.permute(2, 0, 3, 1, 4).unbind(0)
        out = F.scaled_dot_product_attention(self.norm_q(q), self.norm_k(k), v)
        return self.to_out(out.transpose(1, 2).reshape(b, f, s, c))


class TemporalAttention(_SelfAttention):
    """Self-attention over the frames at each location. `[B, F, S, C]` in and out.

    The packed projections go to the fused op as they are; heads of a width that it has no kernel
    for take its reference.
    """

    def forward(self, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        b, f, s, c = x.shape
        n, d = self.num_heads, c // self.num_heads
        qkv = self.to_qkv(x).reshape(b, f, s, 3, n, d)
        attend = temporal_attention if d in HEAD_DIMS else temporal_attention_ref
        norms = self.norm_q.weight, self.norm_k.weight
        return self.to_out(attend(qkv, *norms, cos, sin, eps=RMS_NORM_EPS))


class TextAttention(nn.Module):
    """Attention from hidden states to text tokens (or of the text to itself).

    `x` is `[B, M, C]`, `text` `[B, L, C]`, `mask` `[B, 1, 1, L]` bool, true where attended.
    """

    def __init__(self, width: int, num_heads: int) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.to_q = nn.Linear(width, width)
        self.to_kv = nn.Linear(width, 2 * width)
        self.to_out = nn.Linear(width, width)
        self.norm_q = RMSNorm(width // num_heads)
        self.norm_k = RMSNorm(width // num_heads)

    def forward(self, x: Tensor, text: Tensor, mask: Tensor) -> Tensor:
        b, m, c = x.shape
        n, d = self.num_heads, c // self.num_heads
        q = self.norm_q(self.to_q(x).reshape(b, m, n, d)).transpose(1, 2)
        kv = self.to_kv(text).reshape(b, text.shape[1], 2, n, d)
        k, v = kv.permute(2, 0, 3, 1, 4).unbind(0)
        out = F.scaled_dot_product_attention(q, self.norm_k(k), v, attn_mask=mask)
        return self.to_out(out.transpose(1, 2).reshape(b, m, c))


def _mlp(width: int, ratio: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Linear(width, ratio * width),
        nn.GELU(approximate="tanh"),
        nn.Linear(ratio * width, width),
    )


def _plain_norm(width: int) -> nn.LayerNorm:
    return nn.LayerNorm(width, eps=1e-6, elementwise_affine=False)


class RefinerBlock(nn.Module):
    """Self-attention and MLP over text tokens, `[B, L, C]` in and out."""

    def __init__(self, config: DenoiserConfig) -> None:
        super().__init__()
        self.norm_attention = nn.LayerNorm(config.width)
        self.attention = TextAttention(config.width, config.num_heads)
        self.norm_mlp = nn.LayerNorm(config.width)
        self.mlp = _mlp(config.width, config.mlp_ratio)

    def forward(self, text: Tensor, mask: Tensor) -> Tensor:
        normed = self.norm_attention(text)
        text = text + self.attention(normed, normed, mask)
        return text + self.mlp(self.norm_mlp(text))


class MaskedMean(nn.Module):
    """Mean of the attended text tokens: `[B, L, C]` and mask `[B, 1, 1, L]` to `[B, C]`."""

    def forward(self, text: Tensor, mask: Tensor) -> Tensor:
        attended = mask[:, 0, 0]
        return (text * attended[..., None]).sum(1) / attended.sum(1, keepdim=True)


class SpaceTimeBlock(nn.Module):
    """Spatial, temporal and text attention, then an MLP; `[B, F, S, C]` in and out."""

    def __init__(self, config: DenoiserConfig) -> None:
        super().__init__()
        width, heads = config.width, config.num_heads
        self.norm_spatial = _plain_norm(width)
        self.spatial_attention = SpatialAttention(width, heads)
        self.norm_temporal = _plain_norm(width)
        self.temporal_attention = TemporalAttention(width, heads)
        self.norm_text = nn.LayerNorm(width, eps=1e-6)
        self.text_attention = TextAttention(width, heads)
        self.norm_mlp = _plain_norm(width)
        self.mlp = _mlp(width, config.mlp_ratio)
        self.modulation_table = nn.Parameter(torch.zeros(9, width))

    def forward(
        self,
        x: Tensor,
        modulation: Tensor,
        text: Tensor,
        mask: Tensor,
        rotary: tuple[Tensor, Tensor],
    ) -> Tensor:
        b, f, s, c = x.shape
        rows = (modulation + self.modulation_table).to(x.dtype)[:, :, None, None, :]
        shift_s, scale_s, gate_s, shift_t, scale_t, gate_t, shift_m, scale_m, gate_m = rows.unbind(
            1
        )
        x = x + gate_s * self.spatial_attention(self.norm_spatial(x) * (1 + scale_s) + shift_s)
        x = x + gate_t * self.temporal_attention(
            self.norm_temporal(x) * (1 + scale_t) + shift_t, *rotary
        )
        attended = self.text_attention(self.norm_text(x).reshape(b, f * s, c), text, mask)
        x = x + attended.reshape(b, f, s, c)
        return x + gate_m * self.mlp(self.norm_mlp(x) * (1 + scale_m) + shift_m)


class SpaceTimeDenoiser(nn.Module):
    """Predicts the velocity `noise − data` of noisy latents."""

    config_class = DenoiserConfig

    def __init__(self, config: DenoiserConfig) -> None:
        super().__init__()
        self.config = config
        width = config.width
        self.embed_latents = nn.Linear(config.in_channels, width)
        self.embed_timestep = nn.Sequential(
            nn.Linear(_FREQUENCY_DIM, width), nn.SiLU(), nn.Linear(width, width)
        )
        self.embed_text = nn.Linear(config.text_dim, width)
        self.refiner = nn.ModuleList(RefinerBlock(config) for _ in range(config.num_refiner_blocks))
        self.pool_text = MaskedMean()
        self.embed_pooled_text = nn.Linear(width, width)
        self.modulation = nn.Linear(width, 9 * width)
        self.blocks = nn.ModuleList(SpaceTimeBlock(config) for _ in range(config.num_blocks))
        self.norm_out = _plain_norm(width)
        self.modulation_out = nn.Linear(width, 2 * width)
        self.to_velocity = nn.Linear(width, config.in_channels)
        for layer in (self.modulation, self.modulation_out, self.to_velocity):
            nn.init.zeros_(layer.weight)
            nn.init.zeros_(layer.bias)

    def forward(
        self,
        latents: Tensor,
        timestep: Tensor,
        prompt_embeds: Tensor,
        prompt_mask: Tensor,
        first_frame: int = 0,
    ) -> Tensor:
        """Predicts the velocity.

        Args:
            latents: `[B, C, F, H, W]`, noisy, unit variance.
            timestep: `[B]`, noise level × 1000, in [0, 1000].
            prompt_embeds: `[B, L, E]` token embeddings.
            prompt_mask: `[B, L]`, non-zero at real tokens; every row has one.
            first_frame: Which latent frame of its clip the first one is; training sees pieces.

        Returns:
            `[B, C, F, H, W]`, fp32.
        """
        b, c, f, h, w = latents.shape
        text, mask = self._refine_text(prompt_embeds, prompt_mask)
        pooled = self.pool_text(text, mask)
        frequencies = sinusoid(timestep, _FREQUENCY_DIM).to(pooled.dtype)
        condition = self.embed_timestep(frequencies)
        condition = F.silu(condition + self.embed_pooled_text(pooled))
        modulation = self.modulation(condition).reshape(b, 9, -1)

        x = self.embed_latents(latents.permute(0, 2, 3, 4, 1).reshape(b, f, h * w, c))
        x = x + self._positions(first_frame, f, h, w, latents.device).to(x.dtype)
        rotary = rotary_tables(f, self.config.width // self.config.num_heads, latents.device)
        for block in self.blocks:
            x = block(x, modulation, text, mask, rotary)
        shift, scale = self.modulation_out(condition)[:, None, None, :].chunk(2, dim=-1)
        velocity = self.to_velocity(self.norm_out(x) * (1 + scale) + shift)
        return velocity.reshape(b, f, h, w, c).permute(0, 4, 1, 2, 3).float()

    def _refine_text(self, prompt_embeds: Tensor, prompt_mask: Tensor) -> tuple[Tensor, Tensor]:
        if self.config.text_tokens:
            prompt_embeds = prompt_embeds[:, : self.config.text_tokens]
            prompt_mask = prompt_mask[:, : self.config.text_tokens]
        mask = (prompt_mask != 0)[:, None, None, :]
        text = self.embed_text(prompt_embeds)
        for block in self.refiner:
            text = block(text, mask)
        return text, mask

    def _positions(self, first: int, f: int, h: int, w: int, device: torch.device) -> Tensor:
        """`[1, F, S, C]`: frames in the first half of the channels, rows and columns after."""
        width = self.config.width
        frames = sinusoid(first + torch.arange(f, device=device), width // 2, 100.0)
        rows = sinusoid(torch.arange(h, device=device), width // 4, 100.0)
        columns = sinusoid(torch.arange(w, device=device), width // 4, 100.0)
        grid = torch.cat(
            [
                rows[:, None].expand(h, w, width // 4),
                columns[None, :].expand(h, w, width // 4),
            ],
            dim=-1,
        ).reshape(1, h * w, width // 2)
        return torch.cat(
            [frames[:, None].expand(f, h * w, width // 2), grid.expand(f, h * w, width // 2)],
            dim=-1,
        )[None]
