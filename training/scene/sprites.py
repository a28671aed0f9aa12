"""Pictures of all that can be drawn: shapes in white, things in their colours.

A sprite is `[4, 128, 128]`: red, green and blue multiplied by alpha, then alpha. What is drawn is
centred, and its longer side fills `SPRITE_SIDE` but for two pixels on either side.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from reelserve.training.scene.shapes import signed_distance
from reelserve.training.scene.vocabulary import SHAPES, thing_names, things

SPRITE_SIDE = 128
PER_ROW = 20
"""Sprites in a row of the sheet."""

SHEET_FILE = Path(__file__).parent / "sprites.webp"
CACHE_FILE = Path("build/training/sprites.npy")
"""The sheet for a machine without Pillow, uint8 `[N, 4, 128, 128]`: `cache_sprites` writes it."""

_SHADE = 0.68
"""Brightness of a shape's dark side; the shading turns with it, so a spin can be seen."""
_SHADE_EDGE = 0.75
"""Width of the change from dark to light, in halves of the shape's longer side."""


def all_sprites(device: torch.device | str = "cpu") -> Tensor:
    """Sprites `[N, 4, 128, 128]` fp32 in [0, 1] of `vocabulary.thing_names()`, in its order."""
    return torch.cat([render_shapes(SPRITE_SIDE, device), load_sprites(device)])


def load_sprites(device: torch.device | str = "cpu") -> Tensor:
    """Sprites `[N, 4, 128, 128]` fp32 in [0, 1] of the things, which come after the shapes."""
    try:
        sprites = _read_sheet()
    except ModuleNotFoundError:
        sprites = np.load(CACHE_FILE)
    expected = len(thing_names()) - len(SHAPES)
    if len(sprites) != expected:
        raise ValueError(f"There are {len(sprites)} sprites for {expected} things.")
    return torch.from_numpy(sprites).to(device).float() / 255


def cache_sprites(to: Path = CACHE_FILE) -> None:
    """Writes the things' sprites where a machine without Pillow finds them."""
    to.parent.mkdir(parents=True, exist_ok=True)
    np.save(to, _read_sheet())


def _read_sheet() -> npt.NDArray[np.uint8]:
    """The things' sprites, uint8 `[N, 4, 128, 128]`."""
    from PIL import Image

    with Image.open(SHEET_FILE) as picture:
        sheet = np.asarray(picture.convert("RGBA"))
    rows, columns = sheet.shape[0] // SPRITE_SIDE, sheet.shape[1] // SPRITE_SIDE
    tiles = sheet.reshape(rows, SPRITE_SIDE, columns, SPRITE_SIDE, 4)
    tiles = tiles.transpose(0, 2, 4, 1, 3).reshape(-1, 4, SPRITE_SIDE, SPRITE_SIDE)
    sprites = tiles[: len(thing_names()) - len(SHAPES)].copy()
    alpha = sprites[:, 3:].astype(np.uint16)
    sprites[:, :3] = (sprites[:, :3] * alpha + 127) // 255
    return sprites


def render_shapes(side: int = SPRITE_SIDE, device: torch.device | str = "cpu") -> Tensor:
    """The plain figures in white, `[8, 4, side, side]` fp32 in [0, 1], in the order of `SHAPES`.

    Whoever draws one multiplies its colour by the figure's. The left side is shaded.
    """
    index = torch.arange(len(SHAPES), device=device)[:, None, None]
    left, right, top, bottom = _extents(index)
    half = torch.maximum(right - left, bottom - top) / 2
    # Half of the longer side is 62 of 64 pixels.
    across = (torch.arange(side, device=device) + 0.5) / side * 2 - 1
    across = across * 64 / 62
    u = (left + right) / 2 + across[None, None, :] * half.expand(-1, side, 1)
    v = (top + bottom) / 2 + across[None, :, None] * half.expand(-1, 1, side)
    pixels = side / 2 * 62 / 64 / half
    coverage = (0.5 - signed_distance(u, v, index) * pixels).clamp(0, 1)
    shade = _SHADE + (1 - _SHADE) * (0.5 + across / _SHADE_EDGE).clamp(0, 1)
    return torch.stack([*(coverage * shade,) * 3, coverage], dim=1)


def _extents(index: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Limits left, right, top and bottom of each figure, `[8, 1, 1]` each, in its own radii."""
    grid = torch.linspace(-1.5, 1.5, 601, device=index.device)
    v, u = torch.meshgrid(grid, grid, indexing="ij")
    inside = signed_distance(u[None], v[None], index) <= 0
    limits = []
    for axis in (1, 2):
        covered = inside.any(dim=axis)
        limits.append(torch.where(covered, grid, torch.inf).amin(dim=1)[:, None, None])
        limits.append(torch.where(covered, grid, -torch.inf).amax(dim=1)[:, None, None])
    return limits[0], limits[1], limits[2], limits[3]


def facings(device: torch.device | str = "cpu") -> Tensor:
    """Where each of `thing_names()` looks: −1 left, 1 right, 0 neither, `[N]` fp32."""
    senses = {"left": -1.0, "right": 1.0, "": 0.0}
    looks = [0.0] * len(SHAPES) + [senses[thing["faces"]] for thing in things()]
    return torch.tensor(looks, device=device)
