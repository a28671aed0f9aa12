"""A picture that is painted shape by shape, in coordinates that know no pixels.

Coordinates are in units of the side, x to the right and y down, so that a picture is the same at
every resolution. Edges are about one pixel wide.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

RGB = tuple[float, float, float]


@dataclass
class Painting:
    """What stands before the sky: premultiplied colour, coverage, and what shines at night.

    Attributes:
        rgb: `[3, S, S]` fp32, colour times coverage.
        cover: `[S, S]` fp32 in [0, 1]; the sky shows where it is 0.
        lamps: `[S, S]` fp32 in [0, 1]; where a light is on in the dark.
        gloss: `[S, S]` fp32 in [0, 1]; how much of the sky's colour is mirrored.
        x, y: `[S, S]` fp32, coordinates of the pixels' centres.
    """

    rgb: Tensor
    cover: Tensor
    lamps: Tensor
    gloss: Tensor
    x: Tensor
    y: Tensor

    @classmethod
    def empty(cls, side: int, device: torch.device) -> Painting:
        """A painting of `side` pixels in height and width with nothing on it."""
        line = (torch.arange(side, device=device, dtype=torch.float32) + 0.5) / side
        y, x = torch.meshgrid(line, line, indexing="ij")
        rgb, cover = torch.zeros(3, side, side, device=device), torch.zeros_like(x)
        # A painting replaces its masks and never writes into them, so one may serve three times.
        return cls(rgb, cover=cover, lamps=cover, gloss=cover, x=x, y=y)

    def inside(self, distance: Tensor) -> Tensor:
        """Coverage in [0, 1] of a shape from the signed distance to its edge, negative inside."""
        return (0.5 - distance * self.x.shape[-1]).clamp(0, 1)

    def fill(self, distance: Tensor, colour: RGB | Tensor, opacity: float = 1.0) -> None:
        """Paints a shape, given as a signed distance `[S, S]`, in a colour or in `[3, S, S]`."""
        self.paint(self.inside(distance) * opacity, colour)

    def paint(self, alpha: Tensor, colour: RGB | Tensor) -> None:
        """Paints a colour through a mask `[S, S]` in [0, 1]."""
        if not isinstance(colour, Tensor):
            colour = as_image(colour, self.rgb)
        self.rgb = self.rgb * (1 - alpha) + colour * alpha
        self.cover = self.cover + (1 - self.cover) * alpha
        self.lamps = self.lamps * (1 - alpha)
        self.gloss = self.gloss * (1 - alpha)

    def shine(self, distance: Tensor) -> None:
        """Marks a shape as a lamp, which is lit where the weather is dark."""
        self.lamps = torch.maximum(self.lamps, self.inside(distance))

    def polish(self, distance: Tensor, share: float) -> None:
        """Lets a shape mirror a share of the sky's colour."""
        self.gloss = torch.maximum(self.gloss, share * self.inside(distance))

    def disc(self, x: float, y: float, radius: float) -> Tensor:
        """Distance to a disc."""
        return (self.x - x).hypot(self.y - y) - radius

    def box(self, left: float, top: float, right: float, bottom: float) -> Tensor:
        """Distance to a box, exact beside its sides."""
        across = (self.x - (left + right) / 2).abs() - (right - left) / 2
        along = (self.y - (top + bottom) / 2).abs() - (bottom - top) / 2
        return torch.maximum(across, along)

    def triangle(self, x: float, tip: float, half_width: float, bottom: float) -> Tensor:
        """Distance to a triangle with a level bottom whose tip is at `(x, tip)`."""
        slope = half_width / (bottom - tip)
        flank = ((self.x - x).abs() - (self.y - tip) * slope) / (1 + slope * slope) ** 0.5
        return torch.maximum(flank, self.y - bottom)

    def gradient(self, top: float, bottom: float, upper: RGB, lower: RGB) -> Tensor:
        """Colours `[3, S, S]` that change from height `top` to height `bottom`."""
        share = ((self.y - top) / (bottom - top)).clamp(0, 1)
        first = as_image(upper, self.rgb)
        return first + (as_image(lower, self.rgb) - first) * share


def as_image(colour: RGB, like: Tensor) -> Tensor:
    """A colour as `[3, 1, 1]` fp32 on the device of `like`."""
    return torch.tensor(colour, device=like.device, dtype=torch.float32)[:, None, None]
