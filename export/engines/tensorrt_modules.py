"""Swaps modules of a stage for equal ones that TensorRT can build."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from reelserve.export.families.latte_denoiser import LatteDenoiserStage
from reelserve.export.stages import FrameConsistencyStage
from reelserve.models.frame_consistency import (
    FrameConsistency,
    quantile_index,
    quantile_over_deviation,
)

_HALVINGS = 24
"""Of the range of the measured noise: it is found to 1e-7 of the largest."""


def for_tensorrt(module: nn.Module) -> nn.Module:
    """The stage's module, or one with the same tensors and weights made for this engine."""
    if isinstance(module, FrameConsistencyStage):
        return FrameConsistencyStage(HalvingFrameConsistency(module.filter.config))
    if isinstance(module, LatteDenoiserStage):
        # The node has one form, with norm and rotation; Latte's attention has neither.
        return LatteDenoiserStage(module.transformer, fused=False)
    return module


class HalvingFrameConsistency(FrameConsistency):
    """Finds the quantile of the noise by halving its range; TensorRT sorts 3840 values at most."""

    def _quantile(self, samples: Tensor) -> Tensor:
        index = quantile_index(self.config, samples.shape[1])
        # Above it, the noise is clipped.
        top = self.config.max_noise * quantile_over_deviation(self.config)
        low = torch.zeros_like(samples[:, 0])
        high = torch.full_like(samples[:, 0], top)
        for _ in range(_HALVINGS):
            middle = (low + high) / 2
            enough = (samples <= middle[:, None]).sum(1) > index
            high = torch.where(enough, middle, high)
            low = torch.where(enough, low, middle)
        return high
