"""Swaps modules of a stage for equal ones that ONNX Runtime computes faster."""

from __future__ import annotations

from torch import nn

from reelserve.export.engines.onnx_upsampler import BlockedUpsamplerStage
from reelserve.export.stages import UpsamplerStage


def for_onnx_runtime(module: nn.Module) -> nn.Module:
    """The stage's module, or one with the same tensors and weights made for this engine."""
    if isinstance(module, UpsamplerStage):
        return BlockedUpsamplerStage(module.upsampler)
    return module
