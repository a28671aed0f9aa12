"""Ways to compute temporal attention, to time beside the kernel."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor

from reelserve.kernels.temporal_attention import EPS, temporal_attention_ref

Inputs = tuple[Tensor, Tensor | None, Tensor | None, Tensor | None, Tensor | None]
"""`qkv, norm_q, norm_k, cos, sin`, as the op takes them."""
ProviderCall = Callable[[], object]


def ours(inputs: Inputs) -> ProviderCall:
    """The op."""
    return lambda: torch.ops.reelserve.temporal_attention(*inputs)


def sdpa_transposed(inputs: Inputs) -> ProviderCall:
    """The reference in eager PyTorch: SDPA between transposes."""
    return lambda: temporal_attention_ref(*inputs)


def sdpa_strided(inputs: Inputs) -> ProviderCall:
    """SDPA on strided views; its output is left in SDPA's own layout, which spares it a copy.

    Batch and locations cannot be one dimension of a view, so each batch row is a call.
    """
    return lambda: [_strided_row(row, *inputs[1:]) for row in inputs[0]]


def _strided_row(
    row: Tensor,
    norm_q: Tensor | None,
    norm_k: Tensor | None,
    cos: Tensor | None,
    sin: Tensor | None,
) -> Tensor:
    """`row` is `[F, S, 3, N, D]`, the result `[S, N, F, D]`."""
    q, k, v = row.permute(2, 1, 3, 0, 4).unbind(0)
    if norm_q is not None and norm_k is not None:
        # The weight in the dtype of x: else PyTorch has no fused norm.
        q = F.rms_norm(q, q.shape[-1:], norm_q.to(q.dtype), EPS)
        k = F.rms_norm(k, k.shape[-1:], norm_k.to(k.dtype), EPS)
    if cos is not None and sin is not None:
        q, k = _rotate(q, cos, sin), _rotate(k, cos, sin)
    return F.scaled_dot_product_attention(q, k, v)


def _rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    low, high = x.chunk(2, dim=-1)
    return torch.cat([low * cos - high * sin, high * cos + low * sin], dim=-1).to(x.dtype)


def compiled(inputs: Inputs) -> ProviderCall:
    """torch.compile of the whole chain, for this shape alone."""
    torch._dynamo.reset()
    function = torch.compile(temporal_attention_ref, dynamic=False, fullgraph=True)
    return lambda: function(*inputs)


def flex(inputs: Inputs) -> ProviderCall:
    """torch.compile of the chain around flex_attention, for this shape alone."""
    from torch.nn.attention.flex_attention import flex_attention

    def chain(qkv: Tensor, norm_q, norm_k, cos, sin) -> Tensor:
        b, f, s, _, n, d = qkv.shape
        q, k, v = qkv.permute(3, 0, 2, 4, 1, 5).reshape(3, b * s, n, f, d).unbind(0)
        if norm_q is not None:
            q = F.rms_norm(q, (d,), norm_q.to(q.dtype), EPS)
            k = F.rms_norm(k, (d,), norm_k.to(k.dtype), EPS)
        if cos is not None:
            q, k = _rotate(q, cos, sin), _rotate(k, cos, sin)
        out = flex_attention(q, k, v)
        return out.reshape(b, s, n, f, d).permute(0, 3, 1, 2, 4).reshape(b, f, s, n * d)

    torch._dynamo.reset()
    function = torch.compile(chain, dynamic=False, fullgraph=True)
    return lambda: function(*inputs)


PROVIDERS: dict[str, Callable[[Inputs], ProviderCall]] = {
    "reelserve": ours,
    "sdpa_strided": sdpa_strided,
    "sdpa_transposed": sdpa_transposed,
    "compiled": compiled,
    "flex_attention": flex,
}
