"""Muon over stacks of equal matrices.

`torch.optim.Muon` orthogonalises one matrix at a time, which on a model of many small matrices
is mostly kernel launches. Here matrices of one shape are orthogonalised
together; the update is the same.

Source: Keller Jordan, "Muon"; constants and scaling of `torch.optim.Muon` with
`adjust_lr_fn="match_rms_adamw"`.
"""

from __future__ import annotations

import math
from collections.abc import Iterable

import torch
from torch import Tensor

_COEFFICIENTS = (3.4445, -4.7750, 2.0315)
_ITERATIONS = 5


def orthogonalise(stack: Tensor) -> Tensor:
    """Newton-Schulz iteration towards the nearest orthogonal matrices.

    Args:
        stack: `[n, rows, columns]`.

    Returns:
        The same shape, bf16.
    """
    x = stack.bfloat16()
    tall = x.shape[1] > x.shape[2]
    if tall:
        x = x.mT
    x = x / x.norm(dim=(1, 2), keepdim=True).clamp(min=1e-7)
    a, b, c = _COEFFICIENTS
    for _ in range(_ITERATIONS):
        gram = x @ x.mT
        x = a * x + (b * gram + c * (gram @ gram)) @ x
    return x.mT if tall else x


class StackedMuon(torch.optim.Optimizer):
    """Muon with Nesterov momentum and decoupled weight decay.

    Args:
        params: Matrices only.
        lr: Learning rate, on the scale of AdamW's.
        weight_decay: Decoupled.
        momentum: Weight of the past gradients, in [0, 1).

    Raises:
        ValueError: If a parameter is not a matrix.
    """

    def __init__(
        self,
        params: Iterable[Tensor],
        *,
        lr: float,
        weight_decay: float = 0.0,
        momentum: float = 0.95,
    ) -> None:
        params = list(params)
        if any(parameter.ndim != 2 for parameter in params):
            raise ValueError("StackedMuon takes matrices only")
        super().__init__(params, {"lr": lr, "weight_decay": weight_decay, "momentum": momentum})

    @torch.no_grad()
    def step(self, closure: None = None) -> None:
        """Takes one step; every parameter must have a gradient."""
        for group in self.param_groups:
            by_shape: dict[torch.Size, list[Tensor]] = {}
            for parameter in group["params"]:
                by_shape.setdefault(parameter.shape, []).append(parameter)
            for shape, parameters in by_shape.items():
                updates = self._updates(parameters, group["momentum"])
                torch._foreach_mul_(parameters, 1 - group["lr"] * group["weight_decay"])
                scale = -group["lr"] * 0.2 * math.sqrt(max(shape))
                torch._foreach_add_(parameters, list(updates.float().unbind(0)), alpha=scale)

    def _updates(self, parameters: list[Tensor], momentum: float) -> Tensor:
        gradients = [parameter.grad for parameter in parameters]
        if any(gradient is None for gradient in gradients):
            raise RuntimeError("StackedMuon: a parameter has no gradient")
        for parameter in parameters:
            if "momentum" not in self.state[parameter]:
                self.state[parameter]["momentum"] = torch.zeros_like(parameter)
        buffers = [self.state[parameter]["momentum"] for parameter in parameters]
        torch._foreach_lerp_(buffers, gradients, 1 - momentum)
        return orthogonalise(torch.stack(torch._foreach_lerp(gradients, buffers, momentum)))
