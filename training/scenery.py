"""Backgrounds of the world. Dark or muted, so that every object colour stands out.

Stars, drops and flakes come from fixed tables that wrap around the frame; chance moves the
whole pattern. A small model can learn such scenery, and it still looks like weather.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

_TABLE_SEED = 7
_NUM_STARS = 22
_NUM_DROPS = 26
_NUM_FLAKES = 24


def render_background(kind: Tensor, chance: Tensor, frames: int, side: int) -> Tensor:
    """Renders backgrounds.

    Args:
        kind: `[B]` index into `scenes.BACKGROUNDS`.
        chance: `[B, ≥ 6]` in [0, 1).
        frames: `F`.
        side: `H` and `W` in pixels.

    Returns:
        `[B, 3, F, H, W]` fp32 in [0, 1].
    """
    pixel = torch.arange(side, device=kind.device, dtype=torch.float32) + 0.5
    grid = {
        "x": pixel[None, None, None, None, :],
        "y": pixel[None, None, None, :, None],
        "t": torch.linspace(0, 1, frames, device=kind.device)[None, None, :, None, None],
        "c": chance.T[:, :, None, None, None, None],
        "side": torch.tensor(float(side), device=kind.device),
    }
    out = torch.empty(len(kind), 3, frames, side, side, device=kind.device)
    for index, function in enumerate((_plain, _gradient, _stars, _rain, _snow, _sea)):
        rows = (kind == index).nonzero()[:, 0]
        if len(rows):
            out[rows] = function({**grid, "c": grid["c"][:, rows]}).expand(
                -1, 3, frames, side, side
            )
    return out


def _muted(hue: Tensor, saturation: float, value: Tensor | float) -> Tensor:
    """RGB `[B, 3, 1, 1, 1]` of a hue in turns."""
    offsets = torch.tensor([0.0, 1 / 3, 2 / 3], device=hue.device)[None, :, None, None, None]
    wave = 0.5 + 0.5 * (2 * math.pi * (hue - offsets)).cos()
    return value * (1 - saturation + saturation * wave)


def _rgb(red: float, green: float, blue: float, like: Tensor) -> Tensor:
    return torch.tensor([red, green, blue], device=like.device)[None, :, None, None, None]


def _plain(g: dict[str, Tensor]) -> Tensor:
    return _muted(g["c"][0], 0.35, 0.12 + 0.28 * g["c"][1])


def _gradient(g: dict[str, Tensor]) -> Tensor:
    turn = 2 * math.pi * g["c"][2]
    half = g["side"] / 2
    along = 0.5 + ((g["x"] - half) * turn.cos() + (g["y"] - half) * turn.sin()) / (2.4 * half)
    first, second = _muted(g["c"][0], 0.4, 0.10), _muted(g["c"][1], 0.4, 0.45)
    return first + (second - first) * along


def _table(count: int, device: torch.device) -> tuple[Tensor, ...]:
    """Four fixed numbers in [0, 1) for each of `N` particles, `[1, 1, N]` each."""
    numbers = np.random.default_rng(_TABLE_SEED).random((count, 4))
    columns = torch.as_tensor(numbers, dtype=torch.float32, device=device).unbind(1)
    return tuple(column[None, None] for column in columns)


def _wrapped(centre: Tensor, side: Tensor) -> Tensor:
    """Pixel distances `[B, F, N, side]` to centres `[B, F, N]` on a line that wraps around."""
    pixel = torch.arange(int(side), device=centre.device) + 0.5
    return torch.remainder(pixel - centre[..., None] + side / 2, side) - side / 2


def _particles(brightness: Tensor, column: Tensor, row: Tensor) -> Tensor:
    """Sum of separable spots: `[B, F, N]`, `[B, F, N, W]`, `[B, F, N, H]` to `[B, 1, F, H, W]`."""
    b, f, n = torch.broadcast_shapes(brightness.shape, column.shape[:3], row.shape[:3])
    row = (row * brightness[..., None]).expand(b, f, n, -1)
    return (row.transpose(2, 3) @ column.expand(b, f, n, -1))[:, None]


def _time_and_chance(g: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
    """Time `[1, F, 1]` and chances `[K, B, 1, 1]`, beside particles."""
    return g["t"][0, 0, :, :, 0].unsqueeze(0), g["c"][..., 0, 0]


def _stars(g: dict[str, Tensor]) -> Tensor:
    sky = _rgb(0.03, 0.03, 0.12, g["x"]) + _rgb(0.0, 0.02, 0.10, g["x"]) * (g["y"] / g["side"])
    px, py, phase, size = _table(_NUM_STARS, g["x"].device)
    t, c = _time_and_chance(g)
    dx = _wrapped((px + c[0]) * g["side"], g["side"])
    dy = _wrapped((py + c[1]) * g["side"], g["side"])
    twinkle = 0.75 + 0.25 * (2 * math.pi * (2 * t + phase + c[2])).cos()
    brightness = (0.45 + 0.4 * size) * twinkle
    light = _particles(brightness, torch.exp(-dx * dx / 1.1), torch.exp(-dy * dy / 1.1))
    return sky + light.clamp(max=0.9) * _rgb(1.0, 1.0, 0.9, g["x"])


def _rain(g: dict[str, Tensor]) -> Tensor:
    sky = _rgb(0.20, 0.23, 0.28, g["x"]) * (1.1 - 0.4 * g["y"] / g["side"])
    px, py, _, size = _table(_NUM_DROPS, g["x"].device)
    t, c = _time_and_chance(g)
    dx = _wrapped((px + c[0]) * g["side"], g["side"])
    dy = _wrapped((py + c[1] + 2 * t) * g["side"], g["side"])
    streak = (3.2 + size[..., None] - dy.abs()).clamp(0, 1)
    light = _particles(0.16 + 0.10 * size, torch.exp(-dx * dx / 0.5), streak)
    return sky + light.clamp(max=0.4) * _rgb(0.85, 0.95, 1.0, g["x"])


def _snow(g: dict[str, Tensor]) -> Tensor:
    sky = _rgb(0.16, 0.20, 0.30, g["x"]) * (0.8 + 0.5 * g["y"] / g["side"])
    px, py, phase, size = _table(_NUM_FLAKES, g["x"].device)
    t, c = _time_and_chance(g)
    sway = 1.5 * (2 * math.pi * (2 * t + phase + c[2])).sin()
    dx = _wrapped((px + c[0]) * g["side"] + sway, g["side"])
    dy = _wrapped((py + c[1] + t) * g["side"], g["side"])
    light = _particles(0.35 + 0.25 * size, torch.exp(-dx * dx / 1.4), torch.exp(-dy * dy / 1.4))
    return sky + light.clamp(max=0.65)


def _sea(g: dict[str, Tensor]) -> Tensor:
    x, y, side = g["x"], g["y"], g["side"]
    waves = (2 * math.pi * (2 * x / side + 2 * g["t"] + g["c"][0])).sin()
    waves = waves + 0.6 * (2 * math.pi * (3 * x / side - 3 * g["t"] + g["c"][1])).sin()
    horizon = side * (0.5 + 0.15 * g["c"][2])
    depth = y - horizon - 1.3 * waves
    water = (0.5 + depth).clamp(0, 1)
    crest = torch.exp(-((depth - 1.5) ** 2) / 2.0)
    sky = _rgb(0.22, 0.26, 0.36, x) + _rgb(0.16, 0.12, 0.06, x) * (y / side)
    deep = _rgb(0.02, 0.22, 0.30, x) * (1.2 - 0.5 * y / side)
    return sky + water * (deep - sky) + 0.16 * crest * _rgb(0.8, 1.0, 1.0, x)
