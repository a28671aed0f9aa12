"""Random inputs of temporal attention, and how far a result may be from fp64."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from reelserve.kernels.temporal_attention import temporal_attention_ref

NAMES = {torch.float16: "fp16", torch.bfloat16: "bf16", torch.float32: "fp32"}


@dataclass(frozen=True)
class Problem:
    """A shape and a variant.

    Args:
        b: Batch rows.
        f: Frames.
        s: Locations.
        n: Heads.
        d: Width of a head.
        dtype: Of `qkv`.
        qk_norm: Whether queries and keys are normalised.
        rope: Whether they are rotated.
    """

    b: int
    f: int
    s: int
    n: int
    d: int
    dtype: torch.dtype = torch.float32
    qk_norm: bool = True
    rope: bool = True

    def __str__(self) -> str:
        parts = [f"B{self.b}-F{self.f}-S{self.s}-N{self.n}-D{self.d}-{NAMES[self.dtype]}"]
        parts += ["norm"] * self.qk_norm + ["rope"] * self.rope
        return "-".join(parts)

    def inputs(self, device: str = "cpu") -> tuple[Tensor | None, ...]:
        """Fresh random `qkv, norm_q, norm_k, cos, sin`."""
        qkv = torch.randn(self.b, self.f, self.s, 3, self.n, self.d, device=device)
        norms = [0.5 + torch.rand(self.d, device=device) for _ in range(2)]
        angles = 6 * torch.rand(self.f, self.d // 2, device=device)
        tables = [angles.cos(), angles.sin()]
        return (
            qkv.to(self.dtype),
            *(norms if self.qk_norm else (None, None)),
            *(tables if self.rope else (None, None)),
        )


def assert_as_close_as_torch(found: Tensor, inputs: tuple[Tensor | None, ...]) -> None:
    """The error against fp64 may be twice that of PyTorch in the same dtype, and a rounding."""
    exact = temporal_attention_ref(*inputs, upcast=True)
    torch_error = (temporal_attention_ref(*inputs) - exact).abs().max()
    error = (found.double() - exact).abs().max()
    rounding = torch.finfo(found.dtype).eps * exact.abs().max()
    limit = 2 * torch_error + rounding
    assert error <= limit, f"error {error:.3g} against fp64; the limit is {limit:.3g}"
