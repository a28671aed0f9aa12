"""Sky, light and falling things of each weather, from fixed tables.

Whatever moves repeats after a few frames and comes in two places at most. A small model can learn
such weather, and it still looks like weather.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

from reelserve.training.scene.painting import RGB, Painting, as_image

_TABLE_SEED = 7
_RAIN_PERIOD, _SNOW_PERIOD, _STAR_PERIOD, _FOG_PERIOD = 8, 16, 16, 80
"""Frames after which a movement repeats; divisors of the clip's 80."""
_NUM_DROPS, _NUM_FLAKES, _NUM_STARS = 26, 26, 44
_SHIFTS = ((0.0, 0.0), (0.37, 0.21))
"""The two places of the particles, as shifts in units of the side."""


@dataclass(frozen=True)
class Layer:
    """A moving veil over a picture.

    Attributes:
        alpha: `[P, S, S]` fp32 in [0, 1], one for each frame of a period of `P` frames.
        colour: what is laid over the picture.
    """

    alpha: Tensor
    colour: RGB


@dataclass(frozen=True)
class Light:
    """How a weather changes the colours of what stands before the sky.

    Attributes:
        sky: colours from the top to the horizon, evenly spaced.
        grey: share of colour that is lost, in [0, 1].
        scale: factors of red, green and blue, after that.
        haze, haze_share: a colour that is mixed in at last, and how much of it.
        lamps: the colour of lamps where they are lit.
        cloud: colour of clouds.
    """

    sky: tuple[RGB, ...]
    cloud: RGB
    grey: float = 0.0
    scale: RGB = (1.0, 1.0, 1.0)
    haze: RGB = (0.0, 0.0, 0.0)
    haze_share: float = 0.0
    lamps: RGB | None = None


LIGHTS = {
    "clear": Light(sky=((0.42, 0.65, 0.88), (0.74, 0.87, 0.95)), cloud=(0.94, 0.96, 0.98)),
    "sunset": Light(
        sky=((0.38, 0.24, 0.50), (0.78, 0.38, 0.52), (0.96, 0.58, 0.36), (0.99, 0.76, 0.46)),
        cloud=(0.93, 0.55, 0.50),
        scale=(0.96, 0.73, 0.60),
        haze=(0.84, 0.36, 0.34),
        haze_share=0.26,
        lamps=(1.0, 0.82, 0.40),
    ),
    "night": Light(
        sky=((0.02, 0.03, 0.13), (0.10, 0.13, 0.32)),
        cloud=(0.16, 0.19, 0.36),
        grey=0.35,
        scale=(0.32, 0.38, 0.60),
        haze=(0.04, 0.06, 0.20),
        haze_share=0.2,
        lamps=(0.98, 0.85, 0.45),
    ),
    "rain": Light(
        sky=((0.33, 0.37, 0.42), (0.52, 0.55, 0.58)),
        cloud=(0.27, 0.30, 0.35),
        grey=0.45,
        scale=(0.62, 0.66, 0.72),
    ),
    "snow": Light(
        sky=((0.60, 0.66, 0.75), (0.76, 0.80, 0.85)),
        cloud=(0.70, 0.74, 0.80),
        grey=0.3,
        scale=(0.85, 0.88, 0.95),
        haze=(0.86, 0.90, 0.95),
        haze_share=0.45,
    ),
    "fog": Light(
        sky=((0.74, 0.76, 0.77), (0.80, 0.81, 0.81)),
        cloud=(0.66, 0.68, 0.70),
        grey=0.3,
        haze=(0.77, 0.78, 0.78),
        haze_share=0.36,
    ),
}


def paint_sky(canvas: Painting, weather: str, horizon: float, sun: float) -> Tensor:
    """The sky down to the horizon.

    Args:
        canvas: gives the coordinates.
        weather: one of `vocabulary.WEATHERS`.
        horizon: where the sky ends, in units of the side.
        sun: where the sun sets, likewise.

    Returns:
        `[3, S, S]` fp32 in [0, 1].
    """
    colours = LIGHTS[weather].sky
    stops = len(colours) - 1
    place = (canvas.y / horizon).clamp(0, 1) * stops
    sky = torch.zeros_like(canvas.rgb)
    for index, colour in enumerate(colours):
        sky = sky + (1 - (place - index).abs()).clamp(min=0) * as_image(colour, sky)
    if weather == "sunset":
        away = canvas.disc(sun, horizon - 0.05, 0.0)
        glow = 0.55 * torch.exp(-((away / 0.2) ** 2))
        sky = sky + glow * (as_image((1.0, 0.80, 0.45), sky) - sky)
        disc = canvas.inside(away - 0.085)
        sky = sky + disc * (as_image((1.0, 0.90, 0.60), sky) - sky)
    return sky


def light_up(canvas: Painting, sky: Tensor, weather: str) -> Tensor:
    """The painting in the light of a weather, before a sky `[3, S, S]`, as `[3, S, S]`."""
    light = LIGHTS[weather]
    luma = (canvas.rgb * as_image((0.3, 0.59, 0.11), canvas.rgb)).sum(0, keepdim=True)
    rgb = canvas.rgb + light.grey * (luma - canvas.rgb)
    rgb = rgb * as_image(light.scale, rgb) * (1 - light.haze_share)
    rgb = rgb + light.haze_share * canvas.cover * as_image(light.haze, rgb)
    image = sky * (1 - canvas.cover) + rgb
    mirrored = torch.tensor(light.sky, device=rgb.device).mean(0)[:, None, None]
    image = image + canvas.gloss * (mirrored - image)
    if light.lamps is not None:
        image = image + canvas.lamps * (as_image(light.lamps, image) - image)
    return image.clamp(0, 1)


def lit(colour: RGB, weather: str) -> RGB:
    """One colour in the light of a weather."""
    light = LIGHTS[weather]
    luma = 0.3 * colour[0] + 0.59 * colour[1] + 0.11 * colour[2]
    red, green, blue = (
        light.haze_share * haze
        + (1 - light.haze_share) * scale * (part + light.grey * (luma - part))
        for part, scale, haze in zip(colour, light.scale, light.haze, strict=True)
    )
    return red, green, blue


def particle_table(count: int, seed: int = _TABLE_SEED) -> list[tuple[float, float, float, float]]:
    """Four fixed numbers in [0, 1) for each particle: x, y, phase, size.

    The first two are spread evenly, for no two particles shall lie on each other.
    """
    numbers = np.random.default_rng(seed).random((count, 2))
    # Steps of the plastic number fill a square more evenly than chance does.
    steps = 0.5 + np.arange(1, count + 1)[:, None] * np.array([[0.7548776662, 0.5698402910]])
    rows = np.concatenate([steps % 1.0, numbers], axis=1)
    return [(float(x), float(y), float(phase), float(size)) for x, y, phase, size in rows]


def turns_of(period: int, canvas: Painting) -> Tensor:
    """Time `[P, 1, 1]` in periods."""
    return torch.arange(period, device=canvas.x.device)[:, None, None] / period


def _wrapped(offset: Tensor, period: float) -> Tensor:
    """An offset on a line that repeats, as the nearest one to 0."""
    return torch.remainder(offset + period / 2, period) - period / 2


def slanted(canvas: Painting, lean: float, x: float, y: Tensor) -> tuple[Tensor, Tensor]:
    """Offsets from the nearest copy of a point, of which there are two to a frame's height.

    Copies lie along a leaning line and move along it, so that a movement of half a frame leads
    each copy to the place of the next, and the pattern repeats.

    Args:
        canvas: gives the coordinates.
        lean: how far the line goes to the right for each step down.
        x: where the line crosses the upper edge, in units of the side.
        y: `[P, 1, 1]` height of the point in each frame, likewise.

    Returns:
        `[S, S]` offset across from the line, and `[P, S, S]` offset down from the point.
    """
    return _wrapped(canvas.x - lean * canvas.y - x, 1.0), _wrapped(canvas.y - y, 0.5)


def _rain(canvas: Painting, shift: tuple[float, float]) -> Tensor:
    """Streaks that fall half a frame in a period."""
    fall = 0.5 * turns_of(_RAIN_PERIOD, canvas)
    alpha = torch.zeros(1, device=canvas.x.device)
    for x, y, _, size in particle_table(_NUM_DROPS):
        across, down = slanted(canvas, 0.2, shift[0] + x, shift[1] + 0.5 * y + fall)
        streak = torch.maximum(across.abs() - 0.0048, down.abs() - 0.036 - 0.012 * size)
        alpha = torch.maximum(alpha, (0.46 + 0.16 * size) * canvas.inside(streak))
    return alpha


def _snow(canvas: Painting, shift: tuple[float, float]) -> Tensor:
    """Flakes that sink half a frame in a period and sway."""
    turns = turns_of(_SNOW_PERIOD, canvas)
    alpha = torch.zeros(1, device=canvas.x.device)
    for x, y, phase, size in particle_table(_NUM_FLAKES):
        across, down = slanted(canvas, 0.3, shift[0] + x, shift[1] + 0.5 * (y + turns))
        sway = 0.014 * (2 * math.pi * (turns + phase)).sin()
        flake = (across + 0.3 * down - sway).hypot(down) - 0.010 - 0.007 * size
        alpha = torch.maximum(alpha, 0.92 * canvas.inside(flake))
    return alpha


def _stars(canvas: Painting, shift: tuple[float, float]) -> Tensor:
    """Stars that twinkle."""
    turns = turns_of(_STAR_PERIOD, canvas)
    alpha = torch.zeros(1, device=canvas.x.device)
    for x, y, phase, size in particle_table(_NUM_STARS):
        down = _wrapped(canvas.y - shift[1] - y, 1.0)
        across = _wrapped(canvas.x - shift[0] - x, 1.0)
        star = canvas.inside(across.hypot(down) - 0.0055 - 0.005 * size)
        twinkle = 0.72 + 0.25 * (2 * math.pi * (turns + phase)).cos()
        alpha = torch.maximum(alpha, star * twinkle)
    return alpha


def _fog(canvas: Painting, shift: tuple[float, float]) -> Tensor:
    """A pale veil in broad bands that drift once across the frame in a period."""
    turns = turns_of(_FOG_PERIOD, canvas)
    bend = 0.16 * (2 * math.pi * (1.5 * canvas.y + shift[1])).sin()
    first = (2 * math.pi * (canvas.x + bend + 2.0 * canvas.y - turns + shift[0])).sin()
    second = (2 * math.pi * (canvas.x - bend - 1.0 * canvas.y + turns)).sin()
    return 0.30 + 0.17 * first + 0.10 * second


_MOVING: dict[str, tuple[Callable[[Painting, tuple[float, float]], Tensor], RGB]] = {
    "rain": (_rain, (0.82, 0.89, 0.96)),
    "snow": (_snow, (0.98, 0.99, 1.0)),
    "night": (_stars, (1.0, 0.98, 0.86)),
    "fog": (_fog, (0.86, 0.87, 0.87)),
}


@lru_cache(maxsize=64)
def weather_layer(weather: str, place: int, side: int, device: torch.device) -> Layer | None:
    """What falls, drifts or twinkles in a weather, at one of two places (0 or 1).

    Stars are everywhere; it is for the caller to hide them where there is no sky.
    """
    if weather not in _MOVING:
        return None
    draw, colour = _MOVING[weather]
    return Layer(draw(Painting.empty(side, device), _SHIFTS[place]), colour)
