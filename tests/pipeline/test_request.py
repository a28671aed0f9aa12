import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from reelserve.pipeline.checkpoint import FloatRange, IntRange
from reelserve.pipeline.request import (
    check_float,
    check_int,
    check_token_count,
    decode_text,
    resolve_request,
)
from tests.server.tiny_repository import SPEC

LIMITS = SPEC.limits
PROMPT = np.array([b"a red star"], np.object_)


def resolve(**fields):
    tensors = {name.upper(): np.array(value) for name, value in fields.items()}
    return resolve_request({"PROMPT": PROMPT, **tensors}, LIMITS, lambda: 77)


def test_resolve_request_fills_in_defaults():
    request = resolve()

    assert (request.prompt, request.negative_prompt, request.seed) == ("a red star", "", 77)
    assert request.num_inference_steps == LIMITS.num_inference_steps.default
    assert request.guidance_scale == LIMITS.guidance_scale.default
    assert (request.num_frames, request.fps) == (16, 8)
    assert (request.height, request.width) == (64, 64)


def test_resolve_request_keeps_what_is_given():
    request = resolve(
        seed=[5],
        num_inference_steps=[7],
        guidance_scale=[1.0],
        num_frames=[20],
        fps=[24],
        height=[96],
        width=[128],
    )

    assert (request.seed, request.num_inference_steps, request.guidance_scale) == (5, 7, 1.0)
    assert (request.num_frames, request.fps, request.height, request.width) == (20, 24, 96, 128)


def test_resolve_request_refuses_when_prompt_is_missing():
    with pytest.raises(ValueError, match="PROMPT is missing"):
        resolve_request({}, LIMITS, lambda: 0)


@given(st.binary(max_size=200))
def test_decode_text_returns_text_or_names_the_field(data):
    try:
        text = decode_text("PROMPT", data, 20)
    except ValueError as error:
        assert str(error).startswith("PROMPT holds ")
    else:
        assert text.encode() == data and len(text) <= 20


@given(st.integers(-(2**31), 2**31 - 1))
def test_check_int_returns_or_names_field_value_and_limit(value):
    limit = IntRange(16, 240, 80, multiple_of=4)
    if 16 <= value <= 240 and value % 4 == 0:
        assert check_int("NUM_FRAMES", np.int32(value), limit) == value
    else:
        with pytest.raises(ValueError, match=rf"NUM_FRAMES is {value}; .*16 to 240"):
            check_int("NUM_FRAMES", np.int32(value), limit)


@given(st.floats(width=32))
def test_check_float_returns_or_names_field_and_limit(value):
    limit = FloatRange(1.0, 20.0, 2.5)
    if 1 <= value <= 20:
        assert check_float("GUIDANCE_SCALE", np.float32(value), limit) == value
    else:
        with pytest.raises(ValueError, match=r"GUIDANCE_SCALE is .*; the limits are 1 to 20"):
            check_float("GUIDANCE_SCALE", np.float32(value), limit)


def test_check_token_count_allows_the_limit():
    check_token_count("PROMPT", 64, 64)
    with pytest.raises(ValueError, match="PROMPT holds 65 tokens; the limit is 64"):
        check_token_count("PROMPT", 65, 64)
