"""Removes flicker by attending along time; has no weights, works for any clip.

Two steps. First the global brightness of each frame is pulled to a smooth curve over time.
Then every location attends over the neighbouring frames: a frame counts where its patch agrees
with the current one within the clip's own noise, so static regions are averaged and moving
ones left alone. The noise is measured on the clip: a clean clip passes nearly unchanged.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional


@dataclass(frozen=True)
class ConsistencyConfig:
    """Strength of the filter; brightness is on the [0, 1] scale.

    Args:
        radius: Frames attended on each side.
        patch: Rows and columns of the compared patches, odd.
        agree: Patch distance, in units of pure noise, up to which a frame counts fully.
        disagree: Patch distance from which a frame does not count.
        noise_quantile: Share of locations taken as still when the noise is measured.
        min_noise: Lower bound of the measured standard deviation; about that of rounding.
        max_noise: Upper bound; larger changes are motion.
        gain_radius: Frames on each side that the brightness curve is fitted to.
        max_gain: Largest change of log brightness that counts as flicker.
    """

    radius: int = 3
    patch: int = 3
    agree: float = 1.5
    disagree: float = 2.5
    noise_quantile: float = 0.4
    min_noise: float = 0.0015
    max_noise: float = 0.04
    gain_radius: int = 8
    max_gain: float = 0.08


class FrameConsistency(nn.Module):
    """Flicker filter over whole clips.

    Args:
        config: Strength.
    """

    def __init__(self, config: ConsistencyConfig | None = None) -> None:
        super().__init__()
        self.config = config or ConsistencyConfig()

    def forward(self, clip: Tensor) -> Tensor:
        """Removes flicker.

        Args:
            clip: `[B, F, 3, H, W]`, fp32 in [0, 1].

        Returns:
            Same shape, not clipped.
        """
        clip = clip * self._flicker_gains(clip)
        return self._attend(clip, self._noise_variance(clip))

    def _flicker_gains(self, clip: Tensor) -> Tensor:
        """Factor per frame that moves its brightness onto a smooth curve: `[B, F, 1, 1, 1]`."""
        batch, frames = clip.shape[:2]
        cells = functional.adaptive_avg_pool2d(clip.flatten(0, 1), (8, 8))
        cells = cells.unflatten(0, (batch, frames)).flatten(2)
        before = cells[:, _shifted(frames, -1)]
        ratio = torch.ones_like(cells[:, :, :1])
        for scale in (0.05, 0.02, 0.01, 0.005):
            # Moving cells are outliers of "this frame is the last one times a factor".
            weight = 1 / (1 + ((cells - ratio * before) / scale).square())
            product = (weight * cells * before).sum(-1, keepdim=True)
            ratio = (product + 1e-4) / ((weight * before.square()).sum(-1, keepdim=True) + 1e-4)
        change = ratio[..., 0].log()
        change = torch.where(change.abs() < self.config.max_gain, change, 0)
        level = change.cumsum(1)
        target = level @ _smoother(frames, self.config.gain_radius, clip.dtype).T
        limit = self.config.max_gain
        return (target - level).clamp(-limit, limit).exp()[:, :, None, None, None]

    def _noise_variance(self, clip: Tensor) -> Tensor:
        """Variance of the noise of each clip, `[B, 1, 1, 1, 1]`, from its quieter locations."""
        config = self.config
        change = clip - clip[:, _shifted(clip.shape[1], -1)]
        change = change[:, 1::2].sum(2, keepdim=True).flatten(0, 1)
        # A mixed second difference: blind to everything smooth in space, noise gain 6 per pixel.
        change = functional.pad(change, (1, 1, 1, 1), mode="replicate")
        rows = change[..., 2:, ::2] - 2 * change[..., 1:-1, ::2] + change[..., :-2, ::2]
        samples = rows.flatten(1).abs()
        raise NotImplementedError
