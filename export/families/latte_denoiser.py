"""Latte's transformer over `[B, F, S, C]`, with the fused op for attention over frames.

diffusers' own forward brings the hidden state into one order for spatial and another for
temporal blocks, twice a pair of blocks, and repeats the text for every frame. Here it keeps one
order, the op reads frames where they lie, and the text's keys and values are made once a clip.

Source: diffusers `LatteTransformer3DModel.forward`, `BasicTransformerBlock` (`ada_norm_single`).
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from reelserve.kernels.launch import HEAD_DIMS
from reelserve.kernels.temporal_attention import temporal_attention


class LatteDenoiserStage(nn.Module):
    """LATENTS `[B, C, F, H, W]`, TIMESTEP `[B, 1]` and one text per row to VELOCITY.

    The output is the predicted noise, which the DDIM schedule expects under the contract's name.
    Where the transformer also predicts a variance, that half of its channels is dropped.

    Args:
        transformer: diffusers' `LatteTransformer3DModel`.
            Its norm must be `ada_norm_single`.
        fused: Attention over frames is our op, for the widths of a head that it has; False:
            standard operators.
    """

    def __init__(self, transformer: Any, *, fused: bool = True) -> None:
        super().__init__()
        fused = fused and transformer.config.attention_head_dim in HEAD_DIMS
        self.transformer = transformer
        self.temporal = nn.ModuleList(
            PackedAttention(block.attn1, fused=fused)
            for block in transformer.temporal_transformer_blocks
        )

    def for_graph(self) -> LatteDenoiserStage:
        """Standard operators: the op's node has norm and rotation, which Latte's has not."""
        return LatteDenoiserStage(self.transformer, fused=False)

    def forward(
        self, latents: Tensor, timestep: Tensor, prompt_embeds: Tensor, attention_mask: Tensor
    ) -> Tensor:
        model = self.transformer
        b, c, f, h, w = latents.shape
        for other in (timestep, prompt_embeds, attention_mask):
            # Else the export takes the batch of each input for a size of its own.
            torch._check(other.shape[0] == b)
        latents, prompt_embeds = latents.to(model.dtype), prompt_embeds.to(model.dtype)
        x = model.pos_embed(latents.transpose(1, 2).reshape(b * f, c, h, w))
        x = x.reshape(b, f, *x.shape[1:])
        added = {"resolution": None, "aspect_ratio": None}
        modulation, embedded = model.adaln_single(
            timestep[:, 0], added_cond_kwargs=added, batch_size=b, hidden_dtype=x.dtype
        )
        modulation = modulation.reshape(b, 6, 1, 1, -1)
        text = model.caption_projection(prompt_embeds)
        mask = attention_mask[:, None, None].bool()

        blocks = zip(
            model.transformer_blocks,
            model.temporal_transformer_blocks,
            self.temporal,
            strict=True,
        )
        for number, (spatial, temporal, attend) in enumerate(blocks):
            x = spatial_block(spatial, x, modulation, text, mask)
            if number == 0 and f > 1:
                x = x + model.temp_pos_embed[0][:, None].to(x.dtype)
            x = modulated(temporal, x, modulation, attend)
        table = model.scale_shift_table[:, None, None] + embedded[:, None, None, None]
        shift, scale = table.unbind(1)
        x = model.proj_out(model.norm_out(x) * (1 + scale) + shift)
        return self._unpatchify(x, h, w)[:, :c].float()

    def _unpatchify(self, x: Tensor, height: int, width: int) -> Tensor:
        """`[B, F, S, p·p·C]` to `[B, C, F, H, W]`."""
        p = self.transformer.config.patch_size
        b, f = x.shape[:2]
        x = x.reshape(b, f, height // p, width // p, p, p, -1)
        return x.permute(0, 6, 1, 2, 4, 3, 5).reshape(b, -1, f, height, width)


def modulated(block: Any, x: Tensor, modulation: Tensor, attend: nn.Module) -> Tensor:
    """A block of self-attention and feed-forward, `[B, F, S, C]` in and out.

    Args:
        block: diffusers' `BasicTransformerBlock`, for its norms, table and feed-forward.
        x: Hidden state.
        modulation: `[B, 6, 1, 1, C]`.
        attend: The attention.
    """
    table = block.scale_shift_table[:, None, None] + modulation
    shift_a, scale_a, gate_a, shift_m, scale_m, gate_m = table.unbind(1)
    x = x + gate_a * attend(block.norm1(x) * (1 + scale_a) + shift_a)
    out: Tensor = x + gate_m * block.ff(block.norm2(x) * (1 + scale_m) + shift_m)
    return out


def spatial_block(block: Any, x: Tensor, modulation: Tensor, text: Tensor, mask: Tensor) -> Tensor:
    """Attention within each frame, attention to the text, feed-forward.

    Args:
        block: diffusers' `BasicTransformerBlock`.
        x: `[B, F, S, C]`.
        modulation: `[B, 6, 1, 1, C]`.
        text: `[B, L, C]`.
        mask: `[B, 1, 1, L]`, true where attended.
    """
    b, f, s, c = x.shape
    table = block.scale_shift_table[:, None, None] + modulation
    shift_a, scale_a, gate_a, shift_m, scale_m, gate_m = table.unbind(1)
    hidden = (block.norm1(x) * (1 + scale_a) + shift_a).reshape(b * f, s, c)
    x = x + gate_a * diffusers_attention(block.attn1, hidden, hidden).reshape(b, f, s, c)
    tokens = x.reshape(b, f * s, c)
    # A row of the mask for every query, which ONNX Runtime's Attention wants.
    seen = mask.expand(-1, -1, f * s, -1)
    x = x + diffusers_attention(block.attn2, tokens, text, seen).reshape(b, f, s, c)
    out: Tensor = x + gate_m * block.ff(block.norm2(x) * (1 + scale_m) + shift_m)
    return out


def diffusers_attention(
    module: Any, x: Tensor, source: Tensor, mask: Tensor | None = None
) -> Tensor:
    """Attention from `x` `[B, L, C]` to `source` `[B, T, C]` with diffusers' projections.

    Args:
        module: diffusers' `Attention`.
        x: Queries come from here.
        source: Keys and values come from here.
        mask: `[B, 1, L, T]`, true where attended.
    """
    parts = (module.to_q(x), module.to_k(source), module.to_v(source))
    q, k, v = (part.unflatten(2, (module.heads, -1)).transpose(1, 2) for part in parts)
    out = functional.scaled_dot_product_attention(q, k, v, attn_mask=mask)
    projected: Tensor = module.to_out[0](out.transpose(1, 2).flatten(2))
    return projected


class PackedAttention(nn.Module):
    """Attention over frames at each location, `[B, F, S, C]` in and out.

    Args:
        source: diffusers' `Attention`, whose projections are packed into one.
        fused: Whether our op computes it; False: standard operators do.
    """

    def __init__(self, source: Any, *, fused: bool) -> None:
        super().__init__()
        self.heads, self.fused = source.heads, fused
        parts = (source.to_q, source.to_k, source.to_v)
        has_bias = source.to_q.bias is not None
        self.to_qkv = nn.Linear(source.to_q.in_features, 3 * source.inner_dim, bias=has_bias)
        self.to_qkv.weight.data = torch.cat([part.weight.data for part in parts])
        if has_bias:
            self.to_qkv.bias.data = torch.cat([part.bias.data for part in parts])
        self.to_out = source.to_out[0]

    def forward(self, x: Tensor) -> Tensor:
        b, f, s, _ = x.shape
        qkv = self.to_qkv(x).reshape(b, f, s, 3, self.heads, -1)
        if self.fused:
            out = temporal_attention(qkv)
        else:
            q, k, v = qkv.permute(3, 0, 2, 4, 1, 5).flatten(1, 2).unbind(0)
            out = functional.scaled_dot_product_attention(q, k, v)
            out = out.unflatten(0, (b, s)).permute(0, 3, 1, 2, 4).flatten(3)
        projected: Tensor = self.to_out(out)
        return projected
