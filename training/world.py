"""Renders the procedural world: 10 s clips of 64×64, anti-aliased from signed distances.

Everything is arithmetic on whole batches, so a GPU renders thousands of clips a second and a
CPU the same clips more slowly. Coordinates are pixels, the origin at the top left.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from reelserve.training.scene.shapes import signed_distance
from reelserve.training.scenery import render_background
from reelserve.training.scenes import MOTIONS, Scenes

FRAMES = 80
FPS = 8
SIDE = 64

RADII = (5.5, 8.0, 11.5)
"""Largest radius in pixels during the clip, by size."""

PALETTE = (
    (0.92, 0.10, 0.12),
    (1.00, 0.55, 0.05),
    (1.00, 0.93, 0.15),
    (0.12, 0.75, 0.22),
    (0.18, 0.38, 1.00),
    (0.55, 0.15, 0.85),
    (1.00, 0.50, 0.75),
    (1.00, 1.00, 1.00),
)
"""RGB of each colour of `scenes.COLOURS`."""

_SHADE = 0.68
"""Brightness of an object's dark side; the shading turns with it, so a spin can be seen."""


@dataclass(frozen=True)
class Tracks:
    """Where an object is in every frame, all `[B, F]`.

    Args:
        x: Centre, pixels.
        y: Centre, pixels.
        radius: Pixels.
        angle: Radians.
        alpha: Opacity in [0, 1].
    """

    x: Tensor
    y: Tensor
    radius: Tensor
    angle: Tensor
    alpha: Tensor


def render(scenes: Scenes, device: torch.device | str = "cpu") -> tuple[Tensor, Tensor]:
    """Renders a batch of scenes.

    Args:
        scenes: `B` scenes.
        device: Where to compute.

    Returns:
        Frames `[B, 3, F, H, W]` fp32 in [0, 1], and the coverage of the objects
        `[B, 1, F, H, W]` in [0, 1].
    """
    arrays = {
        name: torch.as_tensor(np.ascontiguousarray(value), device=device)
        for name, value in vars(scenes).items()
    }
    frames = render_background(arrays["background"], arrays["scene_chance"], FRAMES, SIDE)
    covered = torch.zeros_like(frames[:, :1])
    for which in (1, 0):
        tracks = object_tracks(arrays, which)
        draw = _draw_fused if covered.is_cuda else _draw
        coverage, shade = draw(tracks, arrays["shape"][:, which])
        if which == 1:
            coverage = coverage * arrays["two_objects"][:, None, None, None]
        colour = torch.tensor(PALETTE, device=device)[arrays["colour"][:, which]]
        layer = colour[:, :, None, None, None] * shade[:, None]
        frames = frames + coverage[:, None] * (layer - frames)
        covered = torch.maximum(covered, coverage[:, None])
    return frames.clamp(0, 1), covered


def _draw(tracks: Tracks, shape: Tensor) -> tuple[Tensor, Tensor]:
    """Coverage and shading of an object, `[B, F, H, W]` each."""
    pixel = torch.arange(SIDE, device=shape.device, dtype=torch.float32) + 0.5
    dx = pixel[None, None, None, :] - tracks.x[..., None, None]
    dy = pixel[None, None, :, None] - tracks.y[..., None, None]
    radius = tracks.radius[..., None, None]
    cos, sin = tracks.angle.cos()[..., None, None], tracks.angle.sin()[..., None, None]
    u = (cos * dx + sin * dy) / radius
    v = (cos * dy - sin * dx) / radius
    distance = signed_distance(u, v, shape[:, None, None, None]) * radius
    coverage = (0.5 - distance).clamp(0, 1) * tracks.alpha[..., None, None]
    shade = _SHADE + (1 - _SHADE) * (0.5 + u * radius / 3).clamp(0, 1)
    return coverage, shade


# On a GPU one fused kernel replaces a few hundred passes over the frames.
_draw_fused = torch.compile(_draw, dynamic=False)


def object_tracks(arrays: dict[str, Tensor], which: int) -> Tracks:
    """The motion of object number `which` of every scene."""
    chance = arrays["object_chance"][:, which]
    full = torch.tensor(RADII, device=chance.device)[arrays["size"][:, which]]
    box = _region(arrays, which, full)
    time = torch.linspace(0, 1, FRAMES, device=chance.device)[None]
    tracks = _all_motions(box, full[:, None], chance, time)
    index = arrays["motion"][:, which]
    rows = torch.arange(len(index), device=index.device)
    return Tracks(*(stack[index, rows] for stack in tracks))


def _region(arrays: dict[str, Tensor], which: int, radius: Tensor) -> tuple[Tensor, ...]:
    """Limits `x0, x1, y0, y1`, `[B, 1]`, of the object's centre.

    One object has the whole frame; two have a half each, side by side or one above the other.
    """
    chance = arrays["scene_chance"]
    two = arrays["two_objects"]
    stacked = chance[:, 6] < 0.5
    second_half = (chance[:, 7] < 0.5) == bool(which)
    half = SIDE / 2
    zero, side = torch.zeros_like(radius), torch.full_like(radius, SIDE)
    low = torch.where(second_half, half, 0.0)
    high = low + half
    x0 = torch.where(two & ~stacked, low, zero) + radius + 1
    x1 = torch.where(two & ~stacked, high, side) - radius - 1
    y0 = torch.where(two & stacked, low, zero) + radius + 1
    y1 = torch.where(two & stacked, high, side) - radius - 1
    return tuple(limit[:, None] for limit in (x0, x1, y0, y1))


def _all_motions(
    box: tuple[Tensor, ...], full: Tensor, chance: Tensor, time: Tensor
) -> tuple[Tensor, ...]:
    """Every motion for every object: five `[motions, B, F]` stacks in the order of `Tracks`."""
    x0, x1, y0, y1 = box
    c = chance[:, :, None]
    x = x0 + (x1 - x0) * c[:, 0]
    y = y0 + (y1 - y0) * c[:, 1]
    right = torch.where(c[:, 2] < 0.5, time, 1 - time)
    down = torch.where(c[:, 3] < 0.5, time, 1 - time)
    phase = 2 * math.pi * c[:, 4]
    sense = torch.where(c[:, 2] < 0.5, 1.0, -1.0)
    orbit = torch.minimum(x1 - x0, y1 - y0) / 2 * (0.75 + 0.25 * c[:, 5])
    turn = phase + sense * 2 * math.pi * 2 * time
    hop = (math.pi * (4 * time + c[:, 4])).sin().abs()
    still = torch.zeros_like(x + time)
    tilt = still + 0.5 * (c[:, 5] - 0.5)
    grown = 0.35 + 0.65 * time
    beat = 0.775 + 0.225 * (2 * math.pi * 5 * time + phase).cos()
    shown = ((time - 0.3 - 0.2 * c[:, 4]) / 0.2).clamp(0, 1)
    middle_x = (x0 + orbit) + (x1 - x0 - 2 * orbit) * c[:, 0]
    middle_y = (y0 + orbit) + (y1 - y0 - 2 * orbit) * c[:, 1]
    default = {"x": x, "y": y, "radius": full, "angle": tilt, "alpha": still + 1}
    changes: dict[str, dict[str, Tensor]] = {
        "stay": {},
        "across": {"x": x0 + (x1 - x0) * right},
        "diagonal": {"x": x0 + (x1 - x0) * right, "y": y0 + (y1 - y0) * down},
        "bounce": {"y": y1 - (y1 - y0) * (0.85 + 0.15 * c[:, 5]) * hop},
        "orbit": {"x": middle_x + orbit * turn.cos(), "y": middle_y + orbit * turn.sin()},
        "spin": {"angle": turn * 1.5},
        "grow": {"radius": full * grown},
        "shrink": {"radius": full * grown.flip(-1)},
        "pulse": {"radius": full * beat},
        "appear": {"alpha": shown},
    }
    return tuple(
        torch.stack([changes[motion].get(name, value) + still for motion in MOTIONS])
        for name, value in default.items()
    )
