"""Renders scenes: sprites over a background, batched on a GPU or a CPU, at any resolution."""

from __future__ import annotations

from dataclasses import fields
from functools import cache

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor

from reelserve.training.scene.motion import CLIP_FRAMES, object_tracks
from reelserve.training.scene.scenery import OBJECT_RGB, render_background
from reelserve.training.scene.scenes import NATURAL, Scenes
from reelserve.training.scene.sprites import all_sprites, facings
from reelserve.training.scene.vocabulary import COLOURS, MAX_OBJECTS, PLACES, SHAPES

SIDE = 128
FPS = 8

_LEVELS = 4
_TINT = 0.85
"""Share of the named colour in a tinted thing."""


@cache
def _pyramid(device: str) -> Tensor:
    """Sprites at `_LEVELS` sharpnesses, `[N, levels, 4, 128, 128]`, premultiplied.

    Level k holds what a drawing of 128 / 2^k pixels can show, so that a small one does not
    flicker as it moves.
    """
    sprites = all_sprites(device)
    if device != "cpu":
        sprites = sprites.half()
    size = sprites.shape[-2:]
    levels = [sprites]
    for level in range(1, _LEVELS):
        small = F.avg_pool2d(sprites, 2**level)
        levels.append(F.interpolate(small, size=size, mode="bilinear", align_corners=False))
    return torch.stack(levels, dim=1).contiguous()


def scene_arrays(scenes: Scenes, device: torch.device | str) -> dict[str, Tensor]:
    """Fields of the scenes as tensors."""
    return {
        f.name: torch.as_tensor(np.ascontiguousarray(getattr(scenes, f.name)), device=device)
        for f in fields(scenes)
    }


def render(
    scenes: Scenes, device: torch.device | str = "cpu", *, side: int = SIDE, frames: int = 80
) -> tuple[Tensor, Tensor]:
    """Renders a batch of scenes.

    Args:
        scenes: `B` scenes.
        device: Where to compute.
        side: `H` and `W` in pixels.
        frames: `F`, from the start of the 10 s.

    Returns:
        Frames `[B, 3, F, H, W]` in [0, 1] and the coverage of the objects `[B, 1, F, H, W]` in
        [0, 1], fp32.
    """
    arrays = scene_arrays(scenes, device)
    ground = tuple(arrays[name] for name in ("setting", "weather", "ground_colour"))
    picture = render_background(*ground, arrays["scene_chance"], frames, side).contiguous()
    covered = torch.zeros_like(picture[:, :1])
    tracks = object_tracks(arrays, frames)
    for order in range(MAX_OBJECTS):
        # The last is drawn first, so the first mentioned of a pair lies above the other.
        which = MAX_OBJECTS - 1 - order
        rows = (arrays["count"] > which).nonzero()[:, 0]
        if not len(rows):
            continue
        place = {name: getattr(tracks, name)[rows, which] for name in ("x", "y", "radius", "angle")}
        mirror = _mirrored(arrays["thing"][rows, which], tracks.heading[rows, which])
        layer = _sample(arrays["thing"][rows, which], place, mirror, side)
        layer = layer * tracks.alpha[rows, which][:, None, :, None, None]
        rgb, alpha = _tinted(layer, arrays["colour"][rows, which], arrays["thing"][rows, which])
        picture[rows] = picture[rows] * (1 - alpha) + rgb
        covered[rows] = torch.maximum(covered[rows], alpha)
    return picture.clamp(0, 1), covered


def _mirrored(thing: Tensor, heading: Tensor) -> Tensor:
    """1, or −1 where a sprite that looks to one side moves to the other, `[B]`."""
    looks = facings(thing.device)[thing]
    return torch.where(looks * heading < 0, -1.0, 1.0)


def _sample(thing: Tensor, place: dict[str, Tensor], mirror: Tensor, side: int) -> Tensor:
    """One object of each scene in every frame: premultiplied `[B, 4, F, H, W]`."""
    b, f = place["x"].shape
    device = thing.device
    pixel = (torch.arange(side, device=device) + 0.5) / side
    dx = pixel[None, None, None, :] - place["x"][..., None, None]
    dy = pixel[None, None, :, None] - place["y"][..., None, None]
    cos, sin = place["angle"].cos()[..., None, None], place["angle"].sin()[..., None, None]
    radius = place["radius"][..., None, None]
    u = (cos * dx + sin * dy) / radius * mirror[:, None, None, None]
    v = (cos * dy - sin * dx) / radius
    pyramid = _pyramid(str(device))
    wanted = 2 * side * place["radius"]
    level = (128 / wanted.clamp(min=1)).log2().round().clamp(0, _LEVELS - 1).long()
    textures = pyramid[thing[:, None].expand(b, f), level].flatten(0, 1)
    grid = torch.stack([u, v], dim=-1).flatten(0, 1).to(textures.dtype)
    layer = F.grid_sample(textures, grid, padding_mode="zeros", align_corners=False)
    return layer.float().unflatten(0, (b, f)).transpose(1, 2)


def _tinted(layer: Tensor, colour: Tensor, thing: Tensor) -> tuple[Tensor, Tensor]:
    """Colour and opacity of a layer; shapes are painted, things tinted where a colour is given."""
    rgb, alpha = layer[:, :3], layer[:, 3:]
    table = torch.tensor([OBJECT_RGB[name] for name in COLOURS], device=layer.device)
    paint = table[colour.clamp(min=0)]
    paint = paint[:, :, None, None, None]
    light = rgb.mean(1, keepdim=True)
    tinted = (1 - _TINT) * rgb * paint.mean(1, keepdim=True).clamp(min=0.25) + _TINT * paint * (
        0.3 * alpha + 0.8 * light
    )
    shape = (thing < len(SHAPES))[:, None, None, None, None]
    natural = (colour == NATURAL)[:, None, None, None, None]
    return torch.where(shape, paint * rgb, torch.where(natural, rgb, tinted)), alpha


assert PLACES.index("behind") > PLACES.index("in front"), "the first of a pair is in front"
assert CLIP_FRAMES == 10 * FPS
