"""Signed distances of the world's shapes, about one unit in radius, `y` downwards.

Source: the exact distances of star and heart follow Inigo Quilez, "2D distance functions".
"""

from __future__ import annotations

import math

import torch
from torch import Tensor


def signed_distance(u: Tensor, v: Tensor, shape: Tensor) -> Tensor:
    """Distance to the outline, negative inside.

    Args:
        u: Coordinate to the right, in radii.
        v: Coordinate downwards, in radii; same shape as `u`.
        shape: Index into `vocabulary.SHAPES`, broadcastable to `u`.
    """
    distance = _circle(u, v)
    others = (_square, _triangle, _star, _heart, _cross, _ring, _moon)
    for index, function in enumerate(others, start=1):
        distance = torch.where(shape == index, function(u, v), distance)
    return distance


def _circle(u: Tensor, v: Tensor) -> Tensor:
    return torch.hypot(u, v) - 0.95


def _square(u: Tensor, v: Tensor) -> Tensor:
    return torch.maximum(u.abs(), v.abs()) - 0.8


def _triangle(u: Tensor, v: Tensor) -> Tensor:
    slanted = u.abs() * math.cos(math.pi / 6) - v * 0.5
    return torch.maximum(slanted, v) - 0.55


def _star(u: Tensor, v: Tensor) -> Tensor:
    radius, inner = 1.15, 0.45
    k1x, k1y = 0.809016994375, -0.587785252292
    x, y = u.abs(), -v
    fold = (k1x * x + k1y * y).clamp(min=0)
    x, y = x - 2 * fold * k1x, y - 2 * fold * k1y
    fold = (-k1x * x + k1y * y).clamp(min=0)
    x, y = x + 2 * fold * k1x, y - 2 * fold * k1y
    x, y = x.abs(), y - radius
    bax, bay = inner * -k1y, inner * k1x - 1.0
    along = ((x * bax + y * bay) / (bax * bax + bay * bay)).clamp(0, radius)
    side = torch.sign(y * bax - x * bay)
    return torch.hypot(x - bax * along, y - bay * along) * side


def _heart(u: Tensor, v: Tensor) -> Tensor:
    scale = 1.75
    x, y = (u / scale).abs(), 0.55 - v / scale
    lobe = torch.hypot(x - 0.25, y - 0.75) - math.sqrt(2) / 4
    foot = 0.5 * (x + y).clamp(min=0)
    body = torch.minimum(x * x + (y - 1) ** 2, (x - foot) ** 2 + (y - foot) ** 2)
    body = body.clamp(min=1e-12).sqrt() * torch.sign(x - y)
    return torch.where(x + y > 1, lobe, body) * scale


def _cross(u: Tensor, v: Tensor) -> Tensor:
    longer = torch.maximum(u.abs(), v.abs())
    shorter = torch.minimum(u.abs(), v.abs())
    return torch.maximum(longer - 1.0, shorter - 0.32)


def _ring(u: Tensor, v: Tensor) -> Tensor:
    return (torch.hypot(u, v) - 0.78).abs() - 0.25


def _moon(u: Tensor, v: Tensor) -> Tensor:
    return torch.maximum(torch.hypot(u, v) - 1.0, 0.8 - torch.hypot(u - 0.5, v))
