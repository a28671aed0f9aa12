"""The settings as paintings in daylight: two fixed variants of each, nothing left to chance.

Colours are soft and a little muted, so that the objects before them stand out.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from reelserve.training.scene.painting import Painting
from reelserve.training.scene.weather import LIGHTS, particle_table

HORIZON = {
    "sky": 1.0,
    "sea": 0.42,
    "city": 0.85,
    "meadow": 0.5,
    "desert": 0.54,
    "beach": 0.36,
    "mountains": 0.62,
    "forest": 0.5,
    "road": 0.42,
}
"""Where the sky ends, in units of the side, in each setting that has one."""
SUN = (0.72, 0.26)
"""Where the sun sets in the two variants."""


def _wave(canvas: Painting, turns: float, phase: float) -> Tensor:
    return (2 * math.pi * (turns * canvas.x + phase)).sin()


def _below(canvas: Painting, height: Tensor | float) -> Tensor:
    """Distance to all that lies under a height."""
    return height - canvas.y


def _clouds(canvas: Painting, variant: int, weather: str) -> None:
    places = (
        ((0.28, 0.27, 1.0), (0.78, 0.47, 1.2), (0.30, 0.76, 1.1)),
        ((0.70, 0.24, 1.1), (0.24, 0.50, 1.2), (0.74, 0.80, 1.0)),
    )[variant]
    for x, y, size in places:
        puffs = ((-0.11, 0.0, 0.055), (-0.03, -0.04, 0.08), (0.07, -0.02, 0.065), (0.14, 0.0, 0.04))
        shape = torch.full_like(canvas.x, 1.0)
        for across, down, radius in puffs:
            puff = canvas.disc(x + size * across, y + size * down, size * radius)
            shape = torch.minimum(shape, puff)
        shape = torch.minimum(shape, canvas.box(x - 0.11 * size, y, x + 0.14 * size, y + 0.04))
        shape = torch.maximum(shape, canvas.y - y - 0.03 * size)
        # Clouds belong to the sky: their colour is that of the weather already.
        canvas.paint(0.85 * (0.5 - 60 * shape).clamp(0, 1), LIGHTS[weather].cloud)


def _sea(canvas: Painting, variant: int) -> None:
    x = (0.20, 0.78)[variant]
    for across, height, width in ((0.0, 0.055, 0.10), (0.08, 0.03, 0.09)):
        bump = height * (1 - ((canvas.x - x - across) / width) ** 2)
        canvas.fill(torch.maximum(_below(canvas, 0.42 - bump), canvas.y - 0.42), (0.46, 0.56, 0.58))
    water = canvas.gradient(0.42, 1.0, (0.28, 0.58, 0.70), (0.02, 0.26, 0.42))
    canvas.fill(_below(canvas, 0.42), water)
    canvas.polish(_below(canvas, 0.42), 0.35)


def _city(canvas: Painting, variant: int) -> None:
    far = ((0.0, 0.44), (0.16, 0.34), (0.30, 0.48), (0.46, 0.30), (0.62, 0.42), (0.80, 0.36))
    near = (
        ((0.02, 0.20, 0.50), (0.24, 0.19, 0.24), (0.45, 0.22, 0.58), (0.69, 0.17, 0.36)),
        ((-0.03, 0.18, 0.34), (0.17, 0.23, 0.56), (0.42, 0.18, 0.20), (0.62, 0.22, 0.46)),
    )[variant]
    last = ((0.88, 0.17, 0.54), (0.86, 0.17, 0.62))[variant]
    for left, top in far:
        left = left if variant == 0 else 0.86 - left
        canvas.fill(canvas.box(left, top, left + 0.15, 0.9), (0.58, 0.63, 0.70))
    walls = ((0.55, 0.42, 0.38), (0.44, 0.48, 0.56), (0.62, 0.55, 0.44), (0.40, 0.42, 0.50))
    for index, (left, width, top) in enumerate((*near, last)):
        body = canvas.box(left, top, left + width, 0.9)
        canvas.fill(body, walls[index % len(walls)])
        _windows(canvas, left, width, top)
    canvas.fill(_below(canvas, 0.86), (0.60, 0.60, 0.58))
    canvas.fill(_below(canvas, 0.89), (0.32, 0.33, 0.36))


def _windows(canvas: Painting, left: float, width: float, top: float) -> None:
    columns = max(2, round(width / 0.065))
    pitch = width / columns
    column = ((canvas.x - left) / pitch).floor()
    row = ((canvas.y - top - 0.02) / 0.08).floor()
    across = (canvas.x - left - (column + 0.5) * pitch).abs() - 0.016
    down = (canvas.y - top - 0.02 - (row + 0.5) * 0.08).abs() - 0.022
    wall = canvas.box(left + 0.005, top + 0.02, left + width - 0.005, 0.83)
    pane = torch.maximum(torch.maximum(across, down), wall)
    canvas.fill(pane, (0.70, 0.80, 0.86))
    dark = torch.remainder(7 * column + 5 * row + column * row, 3) == 0
    canvas.shine(torch.where(dark, 1.0, pane))


def _meadow(canvas: Painting, variant: int) -> None:
    shift = 0.45 * variant
    far = 0.50 + 0.045 * _wave(canvas, 1.0, 0.1 + shift)
    canvas.fill(_below(canvas, far), (0.56, 0.72, 0.46))
    near = 0.63 + 0.035 * _wave(canvas, 0.8, 0.55 + shift)
    grass = canvas.gradient(0.6, 1.0, (0.46, 0.66, 0.32), (0.30, 0.52, 0.24))
    canvas.fill(_below(canvas, near), grass)
    petals = ((0.95, 0.93, 0.86), (0.93, 0.80, 0.36), (0.86, 0.50, 0.62))
    for index, (x, y, _, size) in enumerate(particle_table(26)):
        x, y = (x if variant == 0 else 1 - x), 0.71 + 0.27 * y
        canvas.fill(canvas.box(x - 0.004, y, x + 0.004, y + 0.03), (0.22, 0.42, 0.18))
        canvas.fill(canvas.disc(x, y, 0.012 + 0.006 * size), petals[index % len(petals)])


def _desert(canvas: Painting, variant: int) -> None:
    shift = 0.5 * variant
    far = 0.54 + 0.05 * _wave(canvas, 1.2, 0.0 + shift)
    canvas.fill(_below(canvas, far), (0.86, 0.70, 0.46))
    for x, foot, size in (
        ((0.20, 0.66, 1.0), (0.86, 0.61, 0.6)),
        ((0.80, 0.66, 1.0), (0.16, 0.61, 0.6)),
    )[variant]:
        _cactus(canvas, x, foot, size)
    middle = 0.68 + 0.05 * _wave(canvas, 0.9, 0.4 + shift)
    canvas.fill(_below(canvas, middle), (0.80, 0.62, 0.38))
    near = 0.84 + 0.05 * _wave(canvas, 0.7, 0.75 + shift)
    canvas.fill(_below(canvas, near), (0.72, 0.53, 0.31))


def _cactus(canvas: Painting, x: float, foot: float, size: float) -> None:
    green = (0.33, 0.46, 0.30)
    boxes = (
        (-0.022, -0.26, 0.022, 0.04),
        (-0.085, -0.13, 0.0, -0.10),
        (-0.085, -0.19, -0.055, -0.10),
        (0.0, -0.10, 0.085, -0.07),
        (0.055, -0.18, 0.085, -0.07),
    )
    for left, top, right, bottom in boxes:
        box = canvas.box(x + size * left, foot + size * top, x + size * right, foot + size * bottom)
        canvas.fill(box, green)
    canvas.fill(canvas.disc(x, foot - 0.26 * size, 0.022 * size), green)


def beach_edge(canvas: Painting, variant: int) -> Tensor:
    """Heights `[S, S]` at which the sand begins on the beach."""
    return 0.64 + (0.10, -0.10)[variant] * (canvas.x - 0.5) + 0.012 * _wave(canvas, 2.0, 0.2)


def _beach(canvas: Painting, variant: int) -> None:
    water = canvas.gradient(0.36, 0.66, (0.25, 0.56, 0.70), (0.42, 0.74, 0.74))
    canvas.fill(_below(canvas, 0.36), water)
    canvas.polish(_below(canvas, 0.36), 0.3)
    edge = beach_edge(canvas, variant)
    canvas.fill(_below(canvas, edge), (0.66, 0.56, 0.41))
    sand = canvas.gradient(0.68, 1.0, (0.89, 0.80, 0.60), (0.82, 0.71, 0.51))
    canvas.fill(_below(canvas, edge + 0.035), sand)
    for x, y, _, size in particle_table(12):
        canvas.fill(canvas.disc(x, 0.77 + 0.21 * y, 0.006 + 0.004 * size), (0.70, 0.58, 0.42))


def _mountains(canvas: Painting, variant: int) -> None:
    far = ((0.08, 0.34), (0.34, 0.27), (0.62, 0.36), (0.92, 0.26))
    near = ((0.20, 0.36), (0.58, 0.22), (0.95, 0.44))
    for peaks, half_width, foot, rock in (
        (far, 0.34, 0.72, (0.60, 0.66, 0.76)),
        (near, 0.40, 0.86, (0.44, 0.47, 0.54)),
    ):
        for x, tip in peaks:
            x = x if variant == 0 else 1 - x
            body = canvas.triangle(x, tip, half_width, foot)
            canvas.fill(body, rock)
            shade = torch.maximum(body, x + 0.15 * (canvas.y - tip) - canvas.x)
            canvas.fill(shade, (0.0, 0.0, 0.05), 0.15)
            teeth = 0.03 * (torch.remainder((canvas.x - x) * 12, 1.0) - 0.5).abs()
            canvas.fill(torch.maximum(body, canvas.y - tip - 0.11 + teeth), (0.93, 0.95, 0.97))
    hill = 0.78 + 0.03 * _wave(canvas, 1.0, 0.5 * variant)
    canvas.fill(_below(canvas, hill), (0.36, 0.50, 0.36))


def _forest(canvas: Painting, variant: int) -> None:
    canvas.fill(_below(canvas, 0.50), (0.38, 0.52, 0.38))
    rows = (
        (8, 0.56, 0.34, (0.40, 0.56, 0.46)),
        (6, 0.74, 0.46, (0.25, 0.43, 0.31)),
        (4, 0.95, 0.62, (0.13, 0.30, 0.20)),
    )
    for index, (count, foot, height, green) in enumerate(rows):
        floor = canvas.gradient(foot - 0.06, 1.0, (0.36, 0.46, 0.28), (0.28, 0.34, 0.20))
        canvas.fill(_below(canvas, foot - 0.04), floor)
        for tree in range(count + 1):
            x = (tree + (0.15, 0.6, 0.0)[index] + 0.5 * variant - 0.25) / count
            tall = height * (1.0, 0.86, 1.08)[(tree + index + variant) % 3]
            trunk = canvas.box(x - 0.03 * tall, foot - 0.2 * tall, x + 0.03 * tall, foot)
            canvas.fill(trunk, (0.24, 0.17, 0.12))
            for part, width in ((0.0, 0.13), (0.22, 0.18), (0.45, 0.23)):
                top = foot - tall + part * tall
                tier = canvas.triangle(x, top, width * tall, top + 0.40 * tall)
                canvas.fill(tier, green)


def _underwater(canvas: Painting, variant: int) -> None:
    water = canvas.gradient(0.0, 1.0, (0.30, 0.66, 0.70), (0.04, 0.24, 0.42))
    canvas.fill(_below(canvas, -1.0), water)
    lean = (canvas.x - 0.5) * (1, -1)[variant] + 0.35 * canvas.y
    for place, width in ((-0.25, 0.05), (0.02, 0.035), (0.22, 0.06), (0.52, 0.05)):
        ray = torch.exp(-(((lean - place) / (width * (0.7 + canvas.y))) ** 2))
        canvas.paint(0.34 * ray * (1 - canvas.y).clamp(0, 1), (0.75, 0.94, 0.92))
    floor = 0.86 + 0.025 * _wave(canvas, 1.3, 0.4 * variant)
    for x, height in ((0.07, 0.34), (0.15, 0.24), (0.84, 0.30), (0.93, 0.20)):
        x = x if variant == 0 else 1 - x
        bend = x + 0.018 * (2 * math.pi * 4 * canvas.y).sin()
        weed = torch.maximum((canvas.x - bend).abs() - 0.016, 0.88 - height - canvas.y)
        canvas.fill(weed, (0.12, 0.40, 0.32))
    canvas.fill(_below(canvas, floor), (0.44, 0.50, 0.44))
    canvas.fill(_below(canvas, floor + 0.06), (0.36, 0.43, 0.40))


def _space(canvas: Painting, variant: int) -> None:
    canvas.fill(_below(canvas, -1.0), (0.015, 0.012, 0.03))
    mirrored = canvas.x if variant == 0 else 1 - canvas.x
    band = (mirrored - canvas.y) / 0.28
    canvas.paint(0.34 * torch.exp(-band * band), (0.38, 0.16, 0.48))
    for x, y, phase, size in particle_table(90, seed=11):
        star = canvas.inside(canvas.disc(x, y, 0.0042 + 0.0045 * size * size))
        x_colour = (0.95, 0.90, 0.80) if phase < 0.4 else (0.85, 0.90, 1.0)
        canvas.paint((0.6 + 0.4 * phase) * star, x_colour)
    x, y = ((0.78, 0.24), (0.20, 0.76))[variant]
    globe = canvas.disc(x, y, 0.15)
    canvas.fill(globe, (0.66, 0.44, 0.34))
    for height, thick in ((-0.07, 0.018), (0.0, 0.026), (0.075, 0.016)):
        stripe = (canvas.y - y - height + 0.25 * (canvas.x - x)).abs() - thick
        canvas.fill(torch.maximum(globe, stripe), (0.80, 0.62, 0.46))
    night_side = torch.maximum(globe, -canvas.disc(x - 0.06, y - 0.05, 0.17))
    canvas.fill(night_side, (0.05, 0.03, 0.06), 0.7)


def _room(canvas: Painting, variant: int) -> None:
    canvas.fill(_below(canvas, -1.0), (0.82, 0.74, 0.62))
    strip = torch.remainder(canvas.x, 0.125) - 0.0625
    canvas.fill(strip.abs() - 0.03, (0.79, 0.70, 0.575))
    canvas.fill(_below(canvas, 0.72), (0.58, 0.42, 0.29))
    for height in (0.78, 0.86, 0.95):
        canvas.fill((canvas.y - height).abs() - 0.004, (0.46, 0.32, 0.21))
    canvas.fill((canvas.y - 0.715).abs() - 0.02, (0.92, 0.89, 0.83))
    left = (0.09, 0.57)[variant]
    canvas.fill(canvas.box(left, 0.12, left + 0.34, 0.54), (0.95, 0.93, 0.89))
    pane = canvas.gradient(0.14, 0.52, (0.52, 0.72, 0.88), (0.78, 0.88, 0.94))
    for column in (0, 1):
        for row in (0, 1):
            x, y = left + 0.025 + 0.155 * column, 0.145 + 0.195 * row
            canvas.fill(canvas.box(x, y, x + 0.135, y + 0.175), pane)
    canvas.fill(canvas.box(left - 0.03, 0.535, left + 0.37, 0.57), (0.90, 0.87, 0.81))
    left = (0.64, 0.12)[variant]
    canvas.fill(canvas.box(left, 0.18, left + 0.24, 0.44), (0.45, 0.29, 0.17))
    canvas.fill(canvas.box(left + 0.025, 0.205, left + 0.215, 0.415), (0.72, 0.80, 0.76))
    scene = torch.maximum(
        canvas.box(left + 0.025, 0.205, left + 0.215, 0.415),
        0.33 + 0.03 * _wave(canvas, 4.0, 0.3) - canvas.y,
    )
    canvas.fill(scene, (0.42, 0.54, 0.42))


def _road(canvas: Painting, variant: int) -> None:
    hills = 0.40 - 0.05 * _wave(canvas, 1.0, 0.1 + 0.5 * variant)
    canvas.fill(_below(canvas, hills), (0.50, 0.62, 0.52))
    sides = canvas.gradient(0.42, 1.0, (0.56, 0.68, 0.42), (0.36, 0.52, 0.28))
    canvas.fill(_below(canvas, 0.42), sides)
    centre, depth = (0.46, 0.54)[variant], (canvas.y - 0.42).clamp(min=0)
    away = (canvas.x - centre - (0.07, -0.07)[variant] * depth).abs()
    under = 0.425 - canvas.y
    half = 0.012 + 0.74 * depth
    tarmac = torch.maximum(0.8 * (away - half), under)
    canvas.fill(tarmac, canvas.gradient(0.42, 1.0, (0.56, 0.57, 0.59), (0.37, 0.38, 0.41)))
    edge = torch.maximum((away - 0.90 * half).abs() - 0.03 * depth, under)
    canvas.fill(edge, (0.88, 0.88, 0.86))
    for top, bottom in ((0.455, 0.475), (0.505, 0.54), (0.59, 0.655), (0.74, 0.87)):
        long = (bottom - top) / 2
        dash = torch.maximum(away - 0.055 * depth, (canvas.y - top - long).abs() - long)
        canvas.fill(dash, (0.92, 0.92, 0.90))


_PAINTERS: dict[str, Callable[[Painting, int], None]] = {
    "sea": _sea,
    "city": _city,
    "meadow": _meadow,
    "desert": _desert,
    "beach": _beach,
    "mountains": _mountains,
    "forest": _forest,
    "underwater": _underwater,
    "space": _space,
    "room": _room,
    "road": _road,
}


def paint_setting(canvas: Painting, setting: str, variant: int) -> None:
    """Paints what stands before the sky in one of `vocabulary.SETTINGS`, in daylight.

    Nothing is painted for `sky`, `plain` and `gradient`.
    """
    if setting in _PAINTERS:
        _PAINTERS[setting](canvas, variant)


def paint_clouds(sky: Tensor, variant: int, weather: str) -> Tensor:
    """A sky `[3, S, S]` with the clouds of the setting `sky` in the colour of the weather."""
    over = Painting.empty(sky.shape[-1], sky.device)
    _clouds(over, variant, weather)
    return sky * (1 - over.cover) + over.rgb
