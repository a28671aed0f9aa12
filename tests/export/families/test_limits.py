"""Limits of a request that a profile changes."""

from __future__ import annotations

import dataclasses

import pytest

from reelserve.export.families.limits import LARGEST, ProfileError, limits_with
from reelserve.export.families.registry import limits_of
from reelserve.pipeline.checkpoint import IntRange, RequestLimits

LIMITS = limits_of("ltx")


def test_limits_with_changes_only_what_is_named() -> None:
    limits = limits_with(LIMITS, {"num_frames": {"high": 65, "default": 33}})
    assert limits.num_frames == IntRange(9, 65, 33, multiple_of=8, offset=1)
    assert limits.height == LIMITS.height


def test_every_limit_has_a_bound() -> None:
    assert set(LARGEST) == {field.name for field in dataclasses.fields(RequestLimits)}


@pytest.mark.parametrize(
    ("profile", "message"),
    [
        ({"frames": {"high": 9}}, "there is no limit 'frames'; there are max_prompt_char"),
        ({"num_frames": {"highest": 9}}, "num_frames has no 'highest'; it has low, high, defa"),
        ({"num_frames": {"low": 10, "high": 10, "default": 10}}, "num_frames is 10"),
        ({"height": {"default": 100}}, "height is 100"),
        (
            {"fps": 30},
            'fps is 30; it must be an object, and for one value only {"low": 30, "high": 30, "def',
        ),
        ({"fps": None}, "fps is None; it must be an object"),
        ({"fps": {"low": 2.5}}, "fps: low is 2.5; it must be a whole number from 1 to 1000"),
        ({"fps": {"high": "30"}}, "fps: high is '30'; it must be a whole number"),
        ({"fps": {"high": True}}, "fps: high is True; it must be a whole number"),
        ({"fps": {"multiple_of": 0}}, "fps: multiple_of is 0; it must be a whole number"),
        ({"height": {"high": 10**6}}, "height: high is 1000000; it must be .* from 1 to 8192"),
        ({"num_frames": {"high": 10**9}}, "num_frames: high is 1000000000; it must be"),
        ({"max_prompt_tokens": "16"}, "max_prompt_tokens is '16'; it must be a whole number"),
        ({"max_prompt_tokens": {"high": 9}}, "max_prompt_tokens is {'high': 9}; it must be a w"),
        ({"max_prompt_tokens": 10**9}, "max_prompt_tokens is 1000000000; .* from 1 to 4096"),
        ({"guidance_scale": {"high": "x"}}, "guidance_scale: high is 'x'; it must be a number"),
        ({"guidance_scale": {"default": 99.0}}, "guidance_scale is 99"),
    ],
)
def test_limits_with_names_field_value_and_limit(profile, message: str) -> None:
    with pytest.raises(ProfileError, match=f"^{message}"):
        limits_with(LIMITS, profile)
