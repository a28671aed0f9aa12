"""Reads a clip back into attributes, so that generated clips can be scored.

For each colour it says whether just one object of that colour is there and which shape, size
and motion it has; for the clip, which background. Two objects of a scene differ in colour, so no
matching of predictions to objects is needed.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

from reelserve.models.denoiser import sinusoid
from reelserve.training.scenes import BACKGROUNDS, COLOURS, MOTIONS, SHAPES, SIZES

FRAME_STRIDE = 4
"""Every fourth frame is read: 20 of 80."""

_SECTIONS = (1, len(SHAPES), len(SIZES), len(MOTIONS))


@dataclass(frozen=True)
class RecogniserConfig:
    """Size of the recogniser.

    Args:
        channels: Widths at 1/2, 1/4 and 1/8 of the clip's height.
        width: Width of the reading layers.
        num_layers: Reading layers.
    """

    channels: tuple[int, int, int]
    width: int
    num_layers: int


BUNDLED = RecogniserConfig(channels=(32, 64, 96), width=128, num_layers=2)


@dataclass(frozen=True)
class SceneReading:
    """What the recogniser sees, as logits.

    Args:
        present: `[B, colours]`, whether there is exactly one object of the colour.
        shape: `[B, colours, shapes]`.
        size: `[B, colours, sizes]`.
        motion: `[B, colours, motions]`.
        background: `[B, backgrounds]`.
    """

    present: Tensor
    shape: Tensor
    size: Tensor
    motion: Tensor
    background: Tensor


class _Down(nn.Module):
    """Halves height and width, then mixes space and time."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.down = nn.Conv3d(in_channels, out_channels, (1, 4, 4), (1, 2, 2), (0, 1, 1))
        self.norm = nn.GroupNorm(8, out_channels)
        self.mix = nn.Conv3d(out_channels, out_channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.down(x)
        return x + self.mix(F.silu(self.norm(x)))


class Recogniser(nn.Module):
    """A small 3-D convolutional network read by one query a colour."""

    config_class = RecogniserConfig

    def __init__(self, config: RecogniserConfig) -> None:
        super().__init__()
        self.config = config
        first, second, third = config.channels
        self.stem = nn.Sequential(_Down(3, first), _Down(first, second), _Down(second, third))
        self.project = nn.Linear(third, config.width)
        self.queries = nn.Parameter(0.02 * torch.randn(len(COLOURS) + 1, config.width))
        self.layers = nn.ModuleList(
            nn.TransformerDecoderLayer(
                config.width, 4, 4 * config.width, 0.0, "gelu", batch_first=True, norm_first=True
            )
            for _ in range(config.num_layers)
        )
        self.read_object = nn.Linear(config.width, sum(_SECTIONS))
        self.read_background = nn.Linear(config.width, len(BACKGROUNDS))

    def forward(self, frames: Tensor) -> SceneReading:
        """Reads clips.

        Args:
            frames: `[B, 3, 80, 64, 64]` in [0, 1].
        """
        x = self.stem(2 * frames[:, :, ::FRAME_STRIDE] - 1)
        b, c, f, h, w = x.shape
        tokens = self.project(x.permute(0, 2, 3, 4, 1).reshape(b, f, h * w, c))
        tokens = tokens + self._positions(f, h, w, x.device)
        tokens = tokens.reshape(b, f * h * w, -1)
        queries = self.queries.expand(b, -1, -1)
        for layer in self.layers:
            queries = layer(queries, tokens)
        objects = self.read_object(queries[:, :-1]).float()
        present, shape, size, motion = objects.split(_SECTIONS, dim=-1)
        background = self.read_background(queries[:, -1]).float()
        return SceneReading(present[..., 0], shape, size, motion, background)

    def _positions(self, f: int, h: int, w: int, device: torch.device) -> Tensor:
        width = self.config.width
        time = sinusoid(torch.arange(f, device=device), width, 100.0)
        rows = sinusoid(torch.arange(h, device=device), width // 2, 100.0)
        columns = sinusoid(torch.arange(w, device=device), width // 2, 100.0)
        grid = torch.cat([rows[:, None].expand(-1, w, -1), columns[None].expand(h, -1, -1)], dim=-1)
        return time[:, None] + grid.reshape(1, h * w, width)
