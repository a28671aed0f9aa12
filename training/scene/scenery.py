"""Backgrounds of the drawn world: a still painting, and a few layers that move over it.

All there is to a background follows from its setting, its weather and at most three choices of
few; nothing else is left to chance. So paintings and layers are drawn once and kept.
"""

from __future__ import annotations

import math
from functools import lru_cache

import torch
from torch import Tensor

from reelserve.training.scene.painting import RGB, Painting, as_image
from reelserve.training.scene.scenery_settings import (
    HORIZON,
    SUN,
    beach_edge,
    paint_clouds,
    paint_setting,
)
from reelserve.training.scene.vocabulary import ALWAYS_CLEAR, COLOURS, SETTINGS, WEATHERS
from reelserve.training.scene.weather import (
    Layer,
    light_up,
    lit,
    paint_sky,
    particle_table,
    slanted,
    turns_of,
    weather_layer,
)

_WAVE_PERIOD, _BUBBLE_PERIOD = 16, 40
_NUM_BUBBLES = 9

GROUND_RGB: dict[str, RGB] = {
    "red": (0.72, 0.16, 0.16),
    "orange": (0.88, 0.52, 0.16),
    "yellow": (0.91, 0.82, 0.30),
    "green": (0.22, 0.56, 0.26),
    "blue": (0.18, 0.32, 0.72),
    "purple": (0.46, 0.22, 0.62),
    "pink": (0.92, 0.60, 0.72),
    "white": (0.95, 0.95, 0.95),
    "black": (0.04, 0.04, 0.04),
    "brown": (0.40, 0.25, 0.14),
    "grey": (0.50, 0.50, 0.50),
    "turquoise": (0.20, 0.68, 0.68),
}
"""Colours of plain backgrounds, softer than those of objects."""

OBJECT_RGB: dict[str, RGB] = {
    "red": (0.93, 0.09, 0.09),
    "orange": (1.0, 0.50, 0.0),
    "yellow": (1.0, 0.90, 0.05),
    "green": (0.08, 0.72, 0.16),
    "blue": (0.08, 0.28, 0.96),
    "purple": (0.56, 0.12, 0.82),
    "pink": (1.0, 0.45, 0.72),
    "white": (1.0, 1.0, 1.0),
    "black": (0.06, 0.06, 0.06),
    "brown": (0.50, 0.28, 0.10),
    "grey": (0.55, 0.55, 0.55),
    "turquoise": (0.10, 0.80, 0.80),
}
"""Colours of painted objects."""

_GRADIENTS: tuple[tuple[RGB, RGB, tuple[float, float]], ...] = (
    ((0.30, 0.18, 0.46), (0.24, 0.60, 0.62), (1.0, 1.0)),
    ((0.80, 0.46, 0.56), (0.44, 0.34, 0.66), (1.0, -1.0)),
    ((0.16, 0.26, 0.44), (0.44, 0.62, 0.40), (1.0, 0.0)),
    ((0.62, 0.28, 0.30), (0.86, 0.70, 0.46), (0.0, 1.0)),
)
"""First colour, second colour and direction of each gradient."""


@torch.no_grad()
def render_background(
    setting: Tensor,
    weather: Tensor,
    ground_colour: Tensor,
    chance: Tensor,
    frames: int,
    side: int,
) -> Tensor:
    """Renders backgrounds at the clip's 8 frames a second.

    Args:
        setting: `[B]` int64 index into `SETTINGS`.
        weather: `[B]` int64 index into `WEATHERS`; read as clear in a setting of `ALWAYS_CLEAR`.
        ground_colour: `[B]` int64 index into `COLOURS`; read where the setting is `plain`.
        chance: `[B, ≥ 3]` in [0, 1): variant of the setting, place of what moves, gradient.
        frames: `F`, counted from the start of the clip.
        side: `S`, height and width in pixels.

    Returns:
        `[B, 3, F, S, S]` fp32 in [0, 1], on the device of `setting`.
    """
    device = setting.device
    out = torch.empty(len(setting), 3, frames, side, side, device=device)
    variants = (chance[:, 0] >= 0.5).long()
    places = (chance[:, 1] >= 0.5).long()
    gradients = (chance[:, 2] * len(_GRADIENTS)).long()
    columns = (setting, weather, ground_colour, variants, places, gradients)
    rows = torch.stack([column.to(device) for column in columns], 1).tolist()
    for row, (kind, sky, ground, variant, place, gradient) in enumerate(rows):
        name = SETTINGS[kind]
        if name == "plain":
            out[row] = as_image(GROUND_RGB[COLOURS[ground]], out)[:, None]
            continue
        if name == "gradient":
            out[row] = _gradient(gradient, side, device)[:, None]
            continue
        air = "clear" if name in ALWAYS_CLEAR else WEATHERS[sky]
        paint = _whole if device.type == "cuda" else _painted
        out[row] = paint(name, air, variant, place, side, device, frames)
    return out


def _painted(
    name: str, air: str, variant: int, place: int, side: int, device: torch.device, frames: int
) -> Tensor:
    """A setting with all that moves, `[3, F or 1, S, S]`."""
    still, _ = _still(name, air, variant, side, device)
    return _moving(still, _layers(name, air, variant, place, side, device), frames)


@lru_cache(maxsize=512)
def _whole(
    name: str, air: str, variant: int, place: int, side: int, device: torch.device, frames: int
) -> Tensor:
    """The same, kept: a GPU has room for all of them, and training draws each again and again."""
    return _painted(name, air, variant, place, side, device, frames).half()


def _moving(still: Tensor, layers: tuple[Layer, ...], frames: int) -> Tensor:
    """Lays layers over a still `[3, S, S]`: `[3, F or 1, S, S]`."""
    if not layers:
        return still[:, None]
    period = min(math.lcm(*(len(layer.alpha) for layer in layers)), frames)
    clip = still[:, None]
    index = torch.arange(period, device=still.device)
    for layer in layers:
        alpha = layer.alpha[index % len(layer.alpha)]
        clip = clip + alpha * (as_image(layer.colour, still)[:, None] - clip)
    return clip[:, torch.arange(frames, device=still.device) % period]


@lru_cache(maxsize=64)
def _gradient(index: int, side: int, device: torch.device) -> Tensor:
    """A gradient `[3, S, S]`."""
    canvas = Painting.empty(side, device)
    first, second, (across, down) = _GRADIENTS[index]
    length = abs(across) + abs(down)
    along = 0.5 + ((canvas.x - 0.5) * across + (canvas.y - 0.5) * down) / length
    start = as_image(first, canvas.rgb)
    return start + (as_image(second, canvas.rgb) - start) * along


@lru_cache(maxsize=256)
def _still(
    setting: str, weather: str, variant: int, side: int, device: torch.device
) -> tuple[Tensor, Tensor]:
    """A setting under a weather: its picture `[3, S, S]`, and the share of sky `[S, S]` in it."""
    canvas = Painting.empty(side, device)
    sky = paint_sky(canvas, weather, HORIZON.get(setting, 1.0), SUN[variant])
    if setting == "sky":
        sky = paint_clouds(sky, variant, weather)
    paint_setting(canvas, setting, variant)
    return light_up(canvas, sky, weather), 1 - canvas.cover


@lru_cache(maxsize=256)
def _layers(
    setting: str, weather: str, variant: int, place: int, side: int, device: torch.device
) -> tuple[Layer, ...]:
    """All that moves in a background, the farthest first."""
    layers = []
    if setting in ("sea", "beach", "underwater"):
        canvas = Painting.empty(side, device)
        if setting == "sea":
            layers.append(Layer(_crests(canvas), lit((0.80, 0.92, 0.94), weather)))
        elif setting == "beach":
            layers.append(Layer(_surf(canvas, variant), lit((0.94, 0.97, 0.97), weather)))
        else:
            layers.append(Layer(_bubbles(canvas, place), (0.84, 0.96, 0.97)))
    falling = weather_layer(weather, place, side, device)
    if falling is not None and weather == "night":
        sky = _still(setting, weather, variant, side, device)[1]
        falling = Layer(falling.alpha * sky, falling.colour)
    return (*layers, falling) if falling is not None else tuple(layers)


def _crests(canvas: Painting) -> Tensor:
    """Rows of waves on the sea that roll to the side, broader the nearer they are."""
    turns = turns_of(_WAVE_PERIOD, canvas)
    alpha = torch.zeros(1, device=canvas.x.device)
    for row, (height, waves) in enumerate(((0.48, 6), (0.57, 5), (0.69, 4), (0.85, 3))):
        swing = 2 * math.pi * (waves * canvas.x + 0.3 * row - turns)
        size = 0.16 / waves
        line = (canvas.y - height - 0.4 * size * swing.sin()).abs() - 0.16 * size
        # A crest is bright at its top and is lost in the trough.
        alpha = torch.maximum(alpha, canvas.inside(line) * (0.45 - 0.35 * swing.sin()))
    return alpha


def _surf(canvas: Painting, variant: int) -> Tensor:
    """Foam that runs up the sand and back, and two lines of waves behind it."""
    turns = turns_of(_WAVE_PERIOD, canvas)
    reach = 0.012 * (2 * math.pi * turns).sin()
    edge = beach_edge(canvas, variant)
    foam = (canvas.y - edge - reach - 0.006).abs() - 0.012
    alpha = 0.85 * canvas.inside(foam)
    for height, waves in ((0.43, 5), (0.52, 4)):
        swing = 2 * math.pi * (waves * canvas.x - turns)
        line = (canvas.y - height - 0.008 * swing.sin()).abs() - 0.005
        alpha = torch.maximum(alpha, canvas.inside(line) * (0.4 - 0.3 * swing.sin()))
    return alpha


def _bubbles(canvas: Painting, place: int) -> Tensor:
    """Bubbles that rise half a frame in a period."""
    turns = turns_of(_BUBBLE_PERIOD, canvas)
    alpha = torch.zeros(1, device=canvas.x.device)
    for x, y, phase, size in particle_table(_NUM_BUBBLES):
        height = 0.5 * (y - turns) + 0.2 * place
        across, down = slanted(canvas, 0.3, x + 0.37 * place, height)
        sway = 0.01 * (2 * math.pi * (turns + phase)).sin()
        away = (across + 0.3 * down - sway).hypot(down)
        radius = 0.014 + 0.014 * size
        rim = canvas.inside((away - radius).abs() - 0.004)
        alpha = torch.maximum(alpha, 0.7 * rim + 0.18 * canvas.inside(away - radius))
    return alpha.clamp(max=0.8)
