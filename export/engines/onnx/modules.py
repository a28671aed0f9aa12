"""Swaps modules of a stage for equal ones that ONNX Runtime computes faster."""

from __future__ import annotations

from typing import Protocol, runtime_checkable

from torch import nn

from reelserve.export.engines.onnx.denoiser import onnx_denoiser
from reelserve.export.engines.onnx.upsampler import BlockedUpsamplerStage
from reelserve.export.engines.onnx.vae import FrameVAEDecoderStage
from reelserve.export.stages import DenoiserStage, UpsamplerStage, VAEDecoderStage


@runtime_checkable
class HasGraphForm(Protocol):
    """A stage's module that has another form for ONNX, because one of its ops has no node."""

    def for_graph(self) -> nn.Module:
        """A module with the same tensors and weights."""
        ...


def for_onnx_runtime(module: nn.Module, *, fused: bool = False) -> nn.Module:
    """The stage's module, or one with the same tensors and weights made for this engine.

    Args:
        module: Module of a stage.
        fused: The denoiser's temporal attention is the fused op.
    """
    if isinstance(module, UpsamplerStage):
        return BlockedUpsamplerStage(module.upsampler)
    if isinstance(module, DenoiserStage):
        return DenoiserStage(onnx_denoiser(module.denoiser, fused=fused))
    if isinstance(module, VAEDecoderStage):
        return FrameVAEDecoderStage(module.vae)
    return for_any_graph(module)


def for_any_graph(module: nn.Module) -> nn.Module:
    """The stage's module, or one with the same tensors and weights that has an ONNX graph."""
    return module.for_graph() if isinstance(module, HasGraphForm) else module
