"""Limits of a request: those of an index, changed by a profile, held to what stages can take."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from reelserve.export.families.settings import is_number
from reelserve.pipeline.checkpoint import FloatRange, IntRange, RequestLimits
from reelserve.pipeline.request import check_float, check_int

LARGEST: dict[str, int] = {
    "max_prompt_characters": 100_000,
    "max_prompt_tokens": 4096,
    "num_inference_steps": 10_000,
    "guidance_scale": 1000,
    "num_frames": 100_000,
    "fps": 1000,
    "height": 8192,
    "width": 8192,
}
"""Largest value that a limit may have, by field: examples of these sizes are made for a graph."""
PLAIN = ("max_prompt_characters", "max_prompt_tokens")
"""Limits that are one number and no range."""


class ProfileError(ValueError):
    """A profile asks for what is no limit, or what no limit can be."""


def limits_with(defaults: RequestLimits, profile: Mapping[str, Any]) -> RequestLimits:
    """Limits with some of them changed.

    Args:
        defaults: Limits of the family.
        profile: Field to a number, or where it has a range, to some of the range's members.

    Raises:
        ProfileError: If there is no such field or member, a value is of another type or out of all
            bounds, or a default lies out of its range.
    """
    changes: dict[str, Any] = {}
    for name, value in profile.items():
        if name not in LARGEST:
            raise ProfileError(f"there is no limit {name!r}; there are {', '.join(LARGEST)}")
        changes[name] = value if name in PLAIN else _changed(name, getattr(defaults, name), value)
    limits = dataclasses.replace(defaults, **changes)
    try:
        require_limits(limits)
    except ValueError as error:
        raise ProfileError(str(error)) from None
    return limits


def _changed(name: str, old: IntRange | FloatRange, value: Any) -> IntRange | FloatRange:
    if not isinstance(value, dict):
        raise ProfileError(
            f"{name} is {value!r}; it must be an object, and for one value only "
            f'{{"low": {value}, "high": {value}, "default": {value}}}'
        )
    members = [field.name for field in dataclasses.fields(old)]
    if unknown := sorted(set(value) - set(members)):
        raise ProfileError(f"{name} has no {unknown[0]!r}; it has {', '.join(members)}")
    return dataclasses.replace(old, **value)


def require_limits(limits: RequestLimits) -> None:
    """Refuses limits that no request or no stage could keep.

    Args:
        limits: What was read, of any types.

    Raises:
        ValueError: If a member is no number of its type or out of `LARGEST`, or a default lies out
            of its range.
    """
    for name, largest in LARGEST.items():
        value = getattr(limits, name)
        if name in PLAIN:
            _require_whole(f"{name}", value, 1, largest)
            continue
        if not isinstance(value, (IntRange, FloatRange)):
            raise ValueError(f"{name} is {value!r}; it must be an object with a range")
        for member, number in dataclasses.asdict(value).items():
            full = f"{name}: {member}"
            if isinstance(value, IntRange):
                _require_whole(full, number, 0 if member == "offset" else 1, largest)
            elif not is_number(number) or not 0 <= number <= largest:
                raise ValueError(f"{full} is {number!r}; it must be a number from 0 to {largest}")
        if isinstance(value, IntRange):
            check_int(f"{name}", value.default, value)
        else:
            check_float(f"{name}", value.default, value)


def _require_whole(name: str, value: object, low: int, high: int) -> None:
    if type(value) is not int or not low <= value <= high:
        raise ValueError(f"{name} is {value!r}; it must be a whole number from {low} to {high}")
