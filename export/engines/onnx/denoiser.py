"""The denoiser's blocks spelled in the operators that ONNX Runtime has fast kernels for.

Same weights, same equations. What differs from the torch module: projections are 2-D matrix
products with their bias (one Gemm each), query, key and value are projected separately instead
of split afterwards, and attention takes `[batch, tokens, N·D]` as it comes, so that only temporal
attention transposes, twice. A row's result is the same bytes in any batch.
"""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn
from torch.nn import functional

from reelserve.kernels.temporal_attention import temporal_attention
from reelserve.models.denoiser import (
    RMSNorm,
    SpaceTimeBlock,
    SpaceTimeDenoiser,
    SpatialAttention,
    TemporalAttention,
    TextAttention,
)

_EPSILON = 1e-6
_RMS_NORM_SINCE = 23
_PER_ROW_LAYERS = (
    "embed_timestep",
    "pool_text",
    "embed_pooled_text",
    "modulation",
    "modulation_out",
)
"""Layers whose products or sums would see one row where the batch has one."""


def onnx_denoiser(denoiser: SpaceTimeDenoiser, *, fused: bool = False) -> SpaceTimeDenoiser:
    """A denoiser of the same weights with its blocks swapped for those below; only for export.

    Args:
        denoiser: The source.
        fused: Temporal attention is the fused op, one node, instead of standard operators.
    """
    # A second copy of the weights would take as much memory again.
    shared = {id(weight): weight for weight in denoiser.parameters()}
    denoiser = copy.deepcopy(denoiser, shared)
    for block in denoiser.refiner:
        block.attention = OnnxTextAttention(block.attention)
    denoiser.blocks = nn.ModuleList(OnnxBlock(block, fused=fused) for block in denoiser.blocks)
    for name in _PER_ROW_LAYERS:
        setattr(denoiser, name, TwiceTheRows(getattr(denoiser, name)))
    return denoiser


class TwiceTheRows(nn.Module):
    """Gives a layer every row of the batch twice, and drops the copies after it.

    ONNX Runtime multiplies and sums a single row in another order than several: without this a
    row's result would depend on whether it came alone.
    """

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, *inputs: Tensor) -> Tensor:
        return self.layer(*(torch.cat([x, x]) for x in inputs))[: inputs[0].shape[0]]


def project(linear: nn.Linear, x: Tensor) -> Tensor:
    """Applies a linear layer to the last dimension as one 2-D product: `[-1, out]`."""
    return functional.linear(x.reshape(-1, x.shape[-1]), linear.weight, linear.bias)


def split_linear(linear: nn.Linear, parts: int) -> nn.ModuleList:
    """Linear layers that compute consecutive parts of a layer's output."""
    layers = nn.ModuleList()
    assert linear.bias is not None
    for weight, bias in zip(linear.weight.chunk(parts), linear.bias.chunk(parts), strict=True):
        layer = nn.Linear(weight.shape[1], weight.shape[0], device="meta")
        layer.weight, layer.bias = nn.Parameter(weight.detach()), nn.Parameter(bias.detach())
        layers.append(layer)
    return layers


def normalise_heads(norm: RMSNorm, x: Tensor, num_heads: int) -> Tensor:
    """Root-mean-square norm of every head.

    Args:
        norm: Its weight is used.
        x: `[..., N·D]`.
        num_heads: `N`.

    Returns:
        `[M, N, D]`, leading dimensions joined.
    """
    heads = x.reshape(-1, num_heads, x.shape[-1] // num_heads)
    return torch.onnx.ops.symbolic(
        "RMSNormalization",
        (heads, norm.weight),
        {"axis": -1, "epsilon": _EPSILON},
        dtype=heads.dtype,
        shape=heads.shape,
        version=_RMS_NORM_SINCE,
    )


def modulated_norm(x: Tensor, scale: Tensor, shift: Tensor) -> Tensor:
    """Layer norm whose scale and shift differ by row.

    Args:
        x: `[B, M, C]`.
        scale: `[B, 1, C]`.
        shift: `[B, 1, C]`.
    """
    # Not as the operator's own scale and shift: per-row ones are added up in another order
    # where there is one row, and a row's result would depend on whether it came alone.
    return functional.layer_norm(x, x.shape[-1:], eps=_EPSILON) * scale + shift


def attention_node(
    query: Tensor, key: Tensor, value: Tensor, num_heads: int, mask: Tensor | None = None
) -> Tensor:
    """Attention over `[batch, tokens, N·D]` tensors.

    Args:
        query: `[batch, M, N·D]`.
        key: `[batch, L, N·D]`.
        value: `[batch, L, N·D]`.
        num_heads: `N`.
        mask: `[batch, 1, M, L]` bool, true where attended.
    """
    return torch.onnx.ops.attention(
        query, key, value, mask, q_num_heads=num_heads, kv_num_heads=num_heads
    )[0]


class OnnxSpatialAttention(nn.Module):
    """Self-attention over the locations of each frame; `x` is `[B·F, S, C]`."""

    def __init__(self, source: SpatialAttention) -> None:
        super().__init__()
        self.num_heads = source.num_heads
        self.to_qkv = split_linear(source.to_qkv, 3)
        self.to_out, self.norm_q, self.norm_k = source.to_out, source.norm_q, source.norm_k

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = (project(linear, x) for linear in self.to_qkv)
        q = normalise_heads(self.norm_q, q, self.num_heads)
        k = normalise_heads(self.norm_k, k, self.num_heads)
        q, k, v = (part.reshape(x.shape) for part in (q, k, v))
        return project(self.to_out, attention_node(q, k, v, self.num_heads))


class OnnxTemporalAttention(nn.Module):
    """Self-attention over the frames at each location; `x` is `[B, F, S, C]`."""

    def __init__(self, source: TemporalAttention) -> None:
        super().__init__()
        self.num_heads = source.num_heads
        self.to_qkv = split_linear(source.to_qkv, 3)
        self.to_out, self.norm_q, self.norm_k = source.to_out, source.norm_q, source.norm_k

    def forward(self, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        b, f, s, c = x.shape
        x = x.transpose(1, 2).reshape(b * s, f, c)
        q, k, v = (project(linear, x) for linear in self.to_qkv)
        q = self._rotate(normalise_heads(self.norm_q, q, self.num_heads), x, cos, sin)
        k = self._rotate(normalise_heads(self.norm_k, k, self.num_heads), x, cos, sin)
        out = attention_node(q, k, v.reshape(x.shape), self.num_heads)
        return project(self.to_out, out.reshape(b, s, f, c).transpose(1, 2))

    def _rotate(self, heads: Tensor, like: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        frames = torch.arange(like.shape[1], device=like.device).expand(like.shape[:2])
        # In fp32, as the plain module: the tables are of it in every precision.
        rotated = torch.onnx.ops.rotary_embedding(
            heads.reshape(like.shape).float(), cos, sin, frames, num_heads=self.num_heads
        )
        return rotated.to(heads.dtype)


class OnnxFusedTemporalAttention(nn.Module):
    """Temporal attention by the fused op, which takes the packed projection as it comes."""

    def __init__(self, source: TemporalAttention) -> None:
        super().__init__()
        self.source = source

    def forward(self, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        source, (b, f, s, c) = self.source, x.shape
        qkv = project(source.to_qkv, x)
        qkv = qkv.reshape(b, f, s, 3, source.num_heads, c // source.num_heads)
        norms = source.norm_q.weight, source.norm_k.weight
        return project(source.to_out, temporal_attention(qkv, *norms, cos, sin, eps=_EPSILON))


class OnnxTextAttention(nn.Module):
    """Attention from hidden states `[B, M, C]` to text tokens `[B, L, C]`."""

    def __init__(self, source: TextAttention) -> None:
        super().__init__()
        self.num_heads = source.num_heads
        self.to_q, self.to_kv = source.to_q, split_linear(source.to_kv, 2)
        self.to_out, self.norm_q, self.norm_k = source.to_out, source.norm_q, source.norm_k

    def forward(self, x: Tensor, text: Tensor, mask: Tensor) -> Tensor:
        q = normalise_heads(self.norm_q, project(self.to_q, x), self.num_heads).reshape(x.shape)
        k, v = (project(linear, text).reshape(text.shape) for linear in self.to_kv)
        k = normalise_heads(self.norm_k, k, self.num_heads).reshape(text.shape)
        # ONNX Runtime broadcasts no mask over queries.
        mask = mask.expand(-1, -1, x.shape[1], -1)
        return project(self.to_out, attention_node(q, k, v, self.num_heads, mask)).reshape(x.shape)


class OnnxBlock(nn.Module):
    """Spatial, temporal and text attention, then an MLP; `[B, F, S, C]` in and out."""

    def __init__(self, source: SpaceTimeBlock, *, fused: bool) -> None:
        super().__init__()
        self.spatial_attention = OnnxSpatialAttention(source.spatial_attention)
        temporal = OnnxFusedTemporalAttention if fused else OnnxTemporalAttention
        self.temporal_attention = temporal(source.temporal_attention)
        self.norm_text = source.norm_text
        self.text_attention = OnnxTextAttention(source.text_attention)
        self.mlp = source.mlp
        self.modulation_table = source.modulation_table

    def forward(
        self,
        x: Tensor,
        modulation: Tensor,
        text: Tensor,
        mask: Tensor,
        rotary: tuple[Tensor, Tensor],
    ) -> Tensor:
        b, f, s, c = x.shape
        rows = (modulation + self.modulation_table)[:, :, None, :].unbind(1)
        shift_s, scale_s, gate_s, shift_t, scale_t, gate_t, shift_m, scale_m, gate_m = rows
        tokens = (b, f * s, c)
        x = x.reshape(tokens)
        hidden = modulated_norm(x, 1 + scale_s, shift_s).reshape(b * f, s, c)
        x = x + gate_s * self.spatial_attention(hidden).reshape(tokens)

        hidden = modulated_norm(x, 1 + scale_t, shift_t).reshape(b, f, s, c)
        x = x + gate_t * self.temporal_attention(hidden, *rotary).reshape(tokens)

        x = x + self.text_attention(self.norm_text(x), text, mask)
        hidden = modulated_norm(x, 1 + scale_m, shift_m)
        expand, activation, contract = self.mlp
        hidden = project(contract, activation(project(expand, hidden)))
        return (x + gate_m * hidden.reshape(tokens)).reshape(b, f, s, c)
