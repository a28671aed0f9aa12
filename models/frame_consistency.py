"""Removes flicker by attending along time; has no weights, works for any clip.

Two steps. First the global brightness of each frame is pulled to a smooth curve over time.
Then every location attends over the neighbouring frames: a frame counts where its patch agrees
with the current one within the clip's own noise, so static regions are averaged and moving
ones left alone. The noise is measured on the clip: a clean clip passes nearly unchanged.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from statistics import NormalDist

import torch
from torch import Tensor, nn
from torch.nn import functional

_CELL = 8
"""Rows and columns of the cells whose mean brightness is compared."""
_BISECTIONS = 15
"""The noise is known to a thousandth of its smallest value, which is 1/27 of its largest."""


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
    agree: float = 2.0
    disagree: float = 4.0
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
            clip: `[B, F, 3, H, W]`, fp32 in [0, 1]; `H` and `W` at least 8.

        Returns:
            Same shape, not clipped.
        """
        clip = clip * self._flicker_gains(clip)
        return self._attend(clip, self._noise_variance(clip))

    def _flicker_gains(self, clip: Tensor) -> Tensor:
        """Factor per frame that moves its brightness onto a smooth curve: `[B, F, 1, 1, 1]`."""
        batch, frames = clip.shape[:2]
        cells = functional.avg_pool2d(clip.flatten(0, 1), _CELL)
        cells = cells.reshape(batch, frames, -1)
        before = cells.index_select(1, _neighbours(frames, -1, clip.device))
        ratio = torch.ones_like(cells[:, :, :1])
        for scale in (0.05, 0.02, 0.01, 0.005):
            # Moving cells are outliers of "this frame is the last one times a factor".
            weight = 1 / (1 + ((cells - ratio * before) / scale).square())
            # The added constant keeps the factor at 1 where nearly everything is black.
            product = (weight * cells * before).sum(-1, keepdim=True) + 0.5
            ratio = product / ((weight * before.square()).sum(-1, keepdim=True) + 0.5)
        change = ratio[..., 0].log()
        limit = self.config.max_gain
        level = torch.where(change.abs() < limit, change, 0.0).cumsum(1)
        target = level @ _line_fit(frames, self.config.gain_radius, clip.device).T
        return (target - level).clamp(-limit, limit).exp()[:, :, None, None, None]

    def _noise_variance(self, clip: Tensor) -> Tensor:
        """Variance of each clip's noise, `[B, 1, 1, 1, 1]`, from its quieter locations."""
        config, frames = self.config, clip.shape[1]
        even = torch.arange(0, frames, 2, device=clip.device)
        # The frame after, or the one before at the clip's end.
        other = (even + 1 - 2 * (even == frames - 1).long()).clamp(min=0)
        change = clip.index_select(1, other) - clip.index_select(1, even)
        # A mixed difference in space is blind to smooth motion such as waves and fades.
        change = change[..., 1::2, :] - change[..., :-1:2, :]
        change = change[..., 1::2] - change[..., :-1:2]
        # Eight terms were added; the quantile of the absolute normal distribution.
        per_deviation = NormalDist().inv_cdf(0.5 + config.noise_quantile / 2) * math.sqrt(8)
        still = _quantile(
            change.flatten(1).abs(), config.noise_quantile, per_deviation * config.max_noise
        )
        deviation = (still / per_deviation).clamp(config.min_noise, config.max_noise)
        return deviation.square()[:, :, None, None, None]

    def _attend(self, clip: Tensor, variance: Tensor) -> Tensor:
        """Average over neighbouring frames, weighted by the agreement of patches."""
        config = self.config
        batch, frames = clip.shape[:2]
        span = config.disagree - config.agree
        slope = 1 / (span * 2 * variance)
        position = torch.arange(frames, device=clip.device)
        total, weights = clip, torch.ones_like(clip[:, :, :1])
        for offset in range(1, config.radius + 1):
            after = _neighbours(frames, offset, clip.device)
            before = _neighbours(frames, -offset, clip.device)
            later = clip.index_select(1, after)
            distance = (later - clip).square().mean(2).flatten(0, 1)[:, None]
            distance = functional.avg_pool2d(
                distance, config.patch, 1, config.patch // 2, count_include_pad=False
            ).unflatten(0, (batch, frames))
            agreement = (config.disagree / span - slope * distance).clamp(0.0, 1.0)
            exists = (position + offset < frames).to(clip.dtype)[:, None, None, None]
            agreement = agreement * exists
            total = total + agreement * later
            # Agreement is mutual: the pair seen from the later frame.
            exists = (position >= offset).to(clip.dtype)[:, None, None, None]
            mutual = agreement.index_select(1, before) * exists
            total = total + mutual * clip.index_select(1, before)
            weights = weights + agreement + mutual
        return total / weights


def _quantile(samples: Tensor, share: float, high: float) -> Tensor:
    """Quantile of each row by bisection: reads a large clip several times instead of sorting it.

    Args:
        samples: `[B, n]`, ≥ 0.
        share: Share of the samples below the quantile, in whole percents.
        high: Largest answer; a quantile above it is answered with it.

    Returns:
        `[B, 1]`, not below the quantile and by less than `high / 2**_BISECTIONS` above it.
    """
    rank = round(share * 100) * samples.shape[1] // 100
    low = torch.zeros_like(samples[:, :1])
    above = torch.full_like(low, high)
    for _ in range(_BISECTIONS):
        middle = (low + above) / 2
        enough = (samples <= middle).sum(1, keepdim=True) > rank
        above = torch.where(enough, middle, above)
        low = torch.where(enough, low, middle)
    return above


def _neighbours(frames: int, offset: int, device: torch.device) -> Tensor:
    """Index of the frame `offset` away from each, the outermost one past the ends: `[F]`."""
    return (torch.arange(frames, device=device) + offset).clamp(0, frames - 1)


def _line_fit(frames: int, radius: int, device: torch.device) -> Tensor:
    """Matrix that fits a line to each frame's neighbourhood and reads it there: `[F, F]`.

    A line, because a mean would bend fades at both ends of the clip.
    """
    position = torch.arange(frames, device=device).float()
    away = position[None] - position[:, None]
    weight = (1 - away.abs() / (radius + 1)).clamp(min=0.0)
    sums = [(weight * away**power).sum(1, keepdim=True) for power in range(3)]
    determinant = sums[0] * sums[2] - sums[1].square()
    # One frame has no slope; its level is 0.
    return weight * (sums[2] - sums[1] * away) / (determinant + 1e-6)
