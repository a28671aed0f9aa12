"""How objects move: centre, radius, angle and opacity of every object in every frame.

Coordinates are shares of the frame's side, the origin at the top left.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from reelserve.training.scene.scenes import ALONE, CORNERS, FAST, FILE, LANE, SLOW
from reelserve.training.scene.vocabulary import MOTIONS, PLACES

CLIP_FRAMES = 80
"""Frames of the 10 s that a motion takes."""
RADII = (0.12, 0.175, 0.25)
"""Half the width of an object by size, as a share of the frame's side; three are smaller."""
CROWD = 0.75
_LEAP_GROUND = 0.74

_ANCHORS = {
    "left": (0.25, 0.5),
    "right": (0.75, 0.5),
    "top": (0.5, 0.26),
    "bottom": (0.5, 0.74),
    "centre": (0.5, 0.5),
    "top left": (0.25, 0.26),
    "top right": (0.75, 0.26),
    "bottom left": (0.25, 0.74),
    "bottom right": (0.75, 0.74),
    "in front": (0.4, 0.62),
    "behind": (0.6, 0.42),
}
_JITTER = 0.04
_FILE_GAP = 0.38
"""Between two that go the same way."""
_FILE_HEIGHT = 0.62


@dataclass(frozen=True)
class Tracks:
    """Where objects are in every frame, all `[B, N, F]`.

    Args:
        x: Centre.
        y: Centre.
        radius: Half the width.
        angle: Radians, clockwise.
        alpha: Opacity in [0, 1].
        heading: −1 to the left, 1 to the right, 0 neither, `[B, N]`.
    """

    x: Tensor
    y: Tensor
    radius: Tensor
    angle: Tensor
    alpha: Tensor
    heading: Tensor


@dataclass(frozen=True)
class _Objects:
    """What a motion is made from, `[B, N, 1]` each, and the time `[1, 1, F]` in [0, 1].

    `in_file` is −0.5 and 0.5 of two on the same way, 0 of all others.
    """

    x: Tensor
    y: Tensor
    radius: Tensor
    rate: Tensor
    fast: Tensor
    slow: Tensor
    direction: Tensor
    phase: Tensor
    crowded: Tensor
    in_file: Tensor
    time: Tensor


def object_tracks(arrays: dict[str, Tensor], frames: int) -> Tracks:
    """The motion of every object.

    Args:
        arrays: Fields of `Scenes` as tensors on one device.
        frames: `F`, from the start of the 10 s.
    """
    objects = _objects(arrays, frames)
    still = torch.zeros_like(objects.x + objects.time)
    default = {
        "x": objects.x,
        "y": objects.y,
        "radius": objects.radius,
        "angle": still,
        "alpha": still + 1,
    }
    changes = {**_in_place(objects), **_travelling(objects), **_paired(objects)}
    index = arrays["motion"][..., None].expand_as(still)[None]
    out = {}
    for name, value in default.items():
        stack = torch.stack([changes[motion].get(name, value) + still for motion in MOTIONS])
        out[name] = stack.gather(0, index)[0]
    return Tracks(**out, heading=_heading(arrays["motion"], objects.direction[..., 0]))


def _objects(arrays: dict[str, Tensor], frames: int) -> _Objects:
    chance, count = arrays["chance"], arrays["count"]
    device = chance.device
    three = (count == 3)[:, None]
    radius = torch.tensor(RADII, device=device)[arrays["size"]]
    radius = torch.where(three, radius * CROWD, radius)
    anchors = torch.tensor([_ANCHORS[name] for name in PLACES], device=device)[arrays["cell"]]
    # Three in a row stand further apart than a third of the frame's places would.
    spread = torch.where(three & (arrays["layout"] != CORNERS)[:, None], 4 / 3, 1.0)[..., None]
    anchors = 0.5 + (anchors - 0.5) * spread
    # An object alone whose place nothing names may be anywhere.
    free = ((arrays["layout"] == ALONE)[:, None] & (arrays["place"] == 0))[..., None]
    near = anchors + 2 * _JITTER * (chance[..., :2] - 0.5)
    centre = torch.where(free, 0.25 + 0.5 * chance[..., :2], near)
    margin = (radius + 0.01)[..., None]
    centre = torch.minimum(torch.maximum(centre, margin), 1 - margin)
    in_file = (arrays["layout"] == FILE)[:, None]
    ahead = torch.where(arrays["cell"] == PLACES.index("left"), -0.5, 0.5)
    centre[..., 1] = torch.where(in_file, _FILE_HEIGHT, centre[..., 1])
    speed = arrays["speed"]
    rate = torch.ones_like(radius)
    rate = torch.where(speed == FAST, 2.25, torch.where(speed == SLOW, 0.5, rate))
    return _Objects(
        x=centre[..., :1],
        y=centre[..., 1:],
        radius=radius[..., None],
        rate=rate[..., None],
        fast=(speed == FAST)[..., None],
        slow=(speed == SLOW)[..., None],
        direction=torch.where(chance[..., 2:3] < 0.5, -1.0, 1.0),
        phase=2 * math.pi * chance[..., 3:4],
        crowded=((count > 1) & (arrays["layout"] != LANE))[:, None, None],
        in_file=torch.where(in_file, ahead, 0.0)[..., None],
        time=torch.arange(frames, device=device, dtype=torch.float32)[None, None] / CLIP_FRAMES,
    )


def _in_place(o: _Objects) -> dict[str, dict[str, Tensor]]:
    t = o.time
    reach = torch.where(o.crowded, 0.1, 0.17)
    turn = o.phase + o.direction * 2 * math.pi * 2 * o.rate * t
    # An orbit must stay in the frame.
    room = torch.minimum(torch.minimum(o.x, 1 - o.x), torch.minimum(o.y, 1 - o.y)) - o.radius
    middle_x = torch.where(room < reach, 0.5 + (o.x - 0.5) * 0.75, o.x)
    middle_y = torch.where(room < reach, 0.5 + (o.y - 0.5) * 0.75, o.y)
    hop = (math.pi * 4 * o.rate * t).sin().abs()
    grown = (0.3 + 0.7 * t / 0.95).clamp(max=1.0)
    beat = 1 - 0.28 * (0.5 - 0.5 * (2 * math.pi * 5 * o.rate * t).cos())
    floor = torch.minimum(o.y + reach, 1 - o.radius)
    swing = (2 * math.pi * 3 * t).sin()
    return {
        "stay": {},
        "bounce": {"y": floor - 2 * reach * hop},
        "orbit": {"x": middle_x + reach * turn.cos(), "y": middle_y + reach * turn.sin()},
        "spin": {"angle": o.direction * 2 * math.pi * 2 * o.rate * t},
        "grow": {"radius": o.radius * grown},
        "shrink": {"radius": o.radius * (1.3 - grown)},
        "pulse": {"radius": o.radius * beat},
        "fade in": {"alpha": ((t - 0.12) / 0.5).clamp(0, 1)},
        "fade out": {"alpha": 1 - ((t - 0.3) / 0.5).clamp(0, 1)},
        "shake": {"x": o.x + 0.028 * (2 * math.pi * 20 * t).sin()},
        "sway": {"x": o.x + 0.05 * swing, "angle": 0.3 * swing},
    }


def _way(o: _Objects, low: Tensor, high: Tensor) -> Tensor:
    """Position along a way from `low` to `high`: once; half of it if slow; again and again if fast.

    A fast one leaves the frame and comes in again from where it came.
    """
    t = o.time
    once = low + (high - low) * t
    part = low + (high - low) * (0.25 + 0.5 * t)
    outside = o.radius + 0.02
    span = 1 + 2 * outside
    sense = torch.where(high > low, 1.0, -1.0)
    lead = sense * o.in_file * _FILE_GAP / span
    forward = -outside + span * ((2.25 * t + 0.3 + lead) % 1.0)
    again = torch.where(high > low, forward, 1 - forward)
    return torch.where(o.fast, again, torch.where(o.slow, part, once))


def _travelling(o: _Objects) -> dict[str, dict[str, Tensor]]:
    t = o.time
    low, high = o.radius + 0.02, 0.98 - o.radius
    # Of two on the same way, each leaves room for the other.
    first = low + _FILE_GAP * (o.in_file > 0)
    last = high - _FILE_GAP * (o.in_file < 0)
    rightward, leftward = _way(o, first, last), _way(o, last, first)
    aside = torch.where(o.direction > 0, rightward, leftward)
    hop = 0.13 * (math.pi * 5 * torch.where(o.fast, 1.6, torch.where(o.slow, 0.6, 1.0)) * t).sin()
    hop = torch.minimum(o.y + 0.05, 1 - o.radius) - hop.abs()
    wave = 2 * (2 * ((3 * t + 0.25) % 1.0) - 1).abs() - 1
    amplitude = torch.where(o.crowded, 0.1, 0.17)
    inside, outside = o.x, o.radius + 0.05
    arrived, gone = (t / 0.6).clamp(max=1), ((t - 0.25) / 0.6).clamp(0, 1)
    near = (0.25 + 0.75 * t / 0.95).clamp(max=1)
    return {
        "left": {"x": leftward},
        "right": {"x": rightward},
        "up": {"y": _way(o, high, low)},
        "down": {"y": _way(o, low, high)},
        "diagonal up": {"x": aside, "y": _way(o, high, low)},
        "diagonal down": {"x": aside, "y": _way(o, low, high)},
        "hop left": {"x": leftward, "y": hop},
        "hop right": {"x": rightward, "y": hop},
        "zigzag": {"x": aside, "y": o.y + amplitude * wave},
        "approach": {"radius": 1.15 * o.radius * near, "y": 0.36 + (o.y - 0.26) * near},
        "enter from left": {"x": -outside + (inside + outside) * arrived},
        "enter from right": {"x": 1 + outside + (inside - 1 - outside) * arrived},
        "leave to left": {"x": inside + (-outside - inside) * gone},
        "leave to right": {"x": inside + (1 + outside - inside) * gone},
    }


def _paired(o: _Objects) -> dict[str, dict[str, Tensor]]:
    t = o.time
    # Both of a pair go the same way: the first one's.
    sense = o.direction[:, :1]
    flight = ((t - 0.15) / 0.7).clamp(0, 1)
    along = 0.14 + 0.72 * flight
    arc = _LEAP_GROUND - 0.52 * (math.pi * flight).sin()
    gap = 0.34
    ahead = -0.3 + 1.9 * ((1.4 * t + 0.42) % 1.0)
    following = -0.3 + 1.9 * ((1.4 * t + 0.42 - gap / 1.9) % 1.0)
    lane = 0.62 + 0 * o.y
    return {
        "leap": {"x": torch.where(sense > 0, along, 1 - along), "y": arc + 0 * o.y},
        "chase": {"x": torch.where(sense > 0, following, 1 - following), "y": lane},
        "flee": {"x": torch.where(sense > 0, ahead, 1 - ahead), "y": lane},
    }


def _heading(motion: Tensor, direction: Tensor) -> Tensor:
    """Which way an object looks; one whose way has two senses looks along its own."""
    table = torch.zeros(len(MOTIONS), device=motion.device)
    for name, sense in (
        ("left", -1),
        ("hop left", -1),
        ("enter from right", -1),
        ("leave to left", -1),
        ("right", 1),
        ("hop right", 1),
        ("enter from left", 1),
        ("leave to right", 1),
    ):
        table[MOTIONS.index(name)] = sense
    free = torch.zeros_like(motion, dtype=torch.bool)
    for name in ("diagonal up", "diagonal down", "zigzag"):
        free |= motion == MOTIONS.index(name)
    shared = torch.zeros_like(free)
    for name in ("leap", "chase", "flee"):
        shared |= motion == MOTIONS.index(name)
    heading = torch.where(free, direction, table[motion])
    return torch.where(shared, direction[:, :1].expand_as(direction), heading)
