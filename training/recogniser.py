"""Reads a clip back into what is in it, so that drawn clips can be scored.

Three queries each find an object or nothing, one reads the background. Which query finds which
object is left open: training and scoring take the assignment that fits best.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import permutations

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

from reelserve.models.denoiser import sinusoid
from reelserve.training.scene.vocabulary import (
    COLOURS,
    MAX_OBJECTS,
    MOTIONS,
    PLACES,
    SETTINGS,
    SIZES,
    WEATHERS,
    thing_names,
)

FRAME_STRIDE = 2
"""Every second frame is read: 40 of 80."""


def object_sections() -> dict[str, int]:
    """Classes of each attribute of an object that is read."""
    return {
        "thing": 1 + len(thing_names()),
        "colour": 1 + len(COLOURS),
        "size": len(SIZES),
        "motion": len(MOTIONS),
        "speed": 3,
        "place": 1 + len(PLACES),
    }


SCENE_SECTIONS = {
    "setting": len(SETTINGS),
    "weather": len(WEATHERS),
    "ground_colour": len(COLOURS),
}
ASSIGNMENTS = tuple(permutations(range(MAX_OBJECTS)))


@dataclass(frozen=True)
class RecogniserConfig:
    """Size of the recogniser.

    Args:
        channels: Widths at 1/2, 1/4, 1/8 and 1/16 of the clip's height.
        width: Width of the reading layers.
        num_layers: Reading layers.
        num_things: Things that it knows.
    """

    channels: tuple[int, int, int, int]
    width: int
    num_layers: int
    num_things: int


def bundled_config() -> RecogniserConfig:
    """Size of the recogniser of the bundled checkpoint."""
    return RecogniserConfig((32, 64, 128, 192), 256, 3, len(thing_names()))


@dataclass(frozen=True)
class SceneReading:
    """What the recogniser sees, as logits.

    Args:
        objects: `[B, 3, K]` for each attribute of `object_sections()`; class 0 of `thing` is no
            object, class 0 of `colour` its natural one, class 0 of `place` no place of a name.
        scene: `[B, K]` for each attribute of `SCENE_SECTIONS`.
    """

    objects: dict[str, Tensor]
    scene: dict[str, Tensor]


class _Down(nn.Module):
    """Halves height and width, then mixes space, and time where it is asked to."""

    def __init__(self, in_channels: int, out_channels: int, *, mixes_time: bool) -> None:
        super().__init__()
        self.down = nn.Conv3d(in_channels, out_channels, (1, 4, 4), (1, 2, 2), (0, 1, 1))
        self.norm = nn.GroupNorm(8, out_channels)
        kernel = (3, 3, 3) if mixes_time else (1, 3, 3)
        padding = tuple(size // 2 for size in kernel)
        self.mix = nn.Conv3d(out_channels, out_channels, kernel, padding=padding)

    def forward(self, x: Tensor) -> Tensor:
        x = self.down(x)
        return x + self.mix(F.silu(self.norm(x)))


class Recogniser(nn.Module):
    """A small convolutional network read by one query an object and one for the scene."""

    config_class = RecogniserConfig

    def __init__(self, config: RecogniserConfig) -> None:
        super().__init__()
        self.config = config
        stages = zip((3, *config.channels[:-1]), config.channels, (0, 0, 1, 1), strict=True)
        self.stem = nn.Sequential(
            *(_Down(before, after, mixes_time=bool(time)) for before, after, time in stages)
        )
        self.project = nn.Linear(config.channels[-1], config.width)
        self.queries = nn.Parameter(0.02 * torch.randn(MAX_OBJECTS + 1, config.width))
        self.layers = nn.ModuleList(
            nn.TransformerDecoderLayer(
                config.width, 8, 4 * config.width, 0.0, "gelu", batch_first=True, norm_first=True
            )
            for _ in range(config.num_layers)
        )
        self.norm = nn.LayerNorm(config.width)
        self.read_object = nn.ModuleDict(
            {name: nn.Linear(config.width, size) for name, size in object_sections().items()}
        )
        self.read_scene = nn.ModuleDict(
            {name: nn.Linear(config.width, size) for name, size in SCENE_SECTIONS.items()}
        )

    def forward(self, frames: Tensor) -> SceneReading:
        """Reads clips.

        Args:
            frames: `[B, 3, F, 128, 128]` in [0, 1]; 80 frames, or one to read it alone.
        """
        x = self.stem(2 * frames[:, :, ::FRAME_STRIDE] - 1)
        b, c, f, h, w = x.shape
        tokens = self.project(x.permute(0, 2, 3, 4, 1).reshape(b, f, h * w, c))
        tokens = (tokens + self._positions(f, h, w, x.device)).reshape(b, f * h * w, -1)
        queries = self.queries.expand(b, -1, -1)
        for layer in self.layers:
            queries = layer(queries, tokens)
        queries = self.norm(queries)
        return SceneReading(
            {name: head(queries[:, :-1]).float() for name, head in self.read_object.items()},
            {name: head(queries[:, -1]).float() for name, head in self.read_scene.items()},
        )

    def _positions(self, f: int, h: int, w: int, device: torch.device) -> Tensor:
        width = self.config.width
        time = sinusoid(torch.arange(f, device=device), width, 100.0)
        rows = sinusoid(torch.arange(h, device=device), width // 2, 100.0)
        columns = sinusoid(torch.arange(w, device=device), width // 2, 100.0)
        grid = torch.cat([rows[:, None].expand(-1, w, -1), columns[None].expand(h, -1, -1)], dim=-1)
        return time[:, None] + grid.reshape(1, h * w, width)


def join_readings(readings: list[SceneReading]) -> SceneReading:
    """Readings of several batches as one."""
    return SceneReading(
        *(
            {name: torch.cat([getattr(r, part)[name] for r in readings]) for name in first}
            for part, first in vars(readings[0]).items()
        )
    )
