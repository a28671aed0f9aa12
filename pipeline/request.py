"""What a request may hold; everything is refused here, before a stage computes anything.

Every error is a `ValueError` that names the field, its value and the limit.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from numpy.typing import NDArray

from reelserve.pipeline.checkpoint import FloatRange, IntRange, RequestLimits

MAX_SEED = 2**63 - 1
"""SEED is INT64."""
PRIORITIES = ("interactive", "batch")
"""Classes of requests, the one that is served first in front."""
MAX_PRIORITY_CHARACTERS = 20
"""Characters of a value that an error message repeats."""


@dataclass(frozen=True)
class VideoRequest:
    """A request with every default filled in; fields are named after its tensors."""

    prompt: str
    negative_prompt: str
    seed: int
    num_inference_steps: int
    guidance_scale: float
    num_frames: int
    fps: int
    height: int
    width: int
    priority: str


def resolve_request(
    tensors: Mapping[str, NDArray[Any]],
    limits: RequestLimits,
    random_seed: Callable[[], int],
) -> VideoRequest:
    """Checks a request and fills in what it leaves out.

    Args:
        tensors: Input tensors by name; those left out are absent.
        limits: Limits of the served checkpoint.
        random_seed: Called when there is no SEED.

    Raises:
        ValueError: If anything is out of range.
    """
    values = {name: single_element(name, array) for name, array in tensors.items()}
    if "PROMPT" not in values:
        raise ValueError("PROMPT is missing; it must hold 1 element")
    most = limits.max_prompt_characters
    return VideoRequest(
        prompt=check_not_blank("PROMPT", decode_text("PROMPT", values["PROMPT"], most)),
        negative_prompt=decode_text("NEGATIVE_PROMPT", values.get("NEGATIVE_PROMPT", ""), most),
        seed=check_seed(values["SEED"] if "SEED" in values else random_seed()),
        guidance_scale=check_float(
            "GUIDANCE_SCALE", values.get("GUIDANCE_SCALE"), limits.guidance_scale
        ),
        priority=check_priority(
            decode_text("PRIORITY", values.get("PRIORITY", PRIORITIES[0]), MAX_PRIORITY_CHARACTERS)
        ),
        **{
            name.lower(): check_int(name, values.get(name), limit)
            for name, limit in integer_limits(limits).items()
        },
    )


def integer_limits(limits: RequestLimits) -> dict[str, IntRange]:
    """Ranges of the integer fields by tensor name."""
    return {
        "NUM_INFERENCE_STEPS": limits.num_inference_steps,
        "NUM_FRAMES": limits.num_frames,
        "FPS": limits.fps,
        "HEIGHT": limits.height,
        "WIDTH": limits.width,
    }


def single_element(field: str, array: NDArray[Any]) -> Any:
    """The only element of a tensor.

    Raises:
        ValueError: If it holds another number of elements.
    """
    if array.size == 0:
        raise ValueError(f"{field} holds 0 elements; it must hold 1")
    if array.size > 1:
        raise ValueError(f"{field} holds {array.size} elements; the limit is 1")
    return array.reshape(-1)[0]


def decode_text(field: str, value: str | bytes, max_characters: int) -> str:
    """Reads text.

    Raises:
        ValueError: If it is not UTF-8, or longer than `max_characters`.
    """
    try:
        text = value.decode("utf-8") if isinstance(value, bytes) else value
    except UnicodeDecodeError as error:
        raise ValueError(
            f"{field} holds the byte 0x{error.object[error.start]:02x} at position "
            f"{error.start}; it must be UTF-8"
        ) from None
    if len(text) > max_characters:
        raise ValueError(f"{field} holds {len(text)} characters; the limit is {max_characters}")
    return text


def check_not_blank(field: str, text: str) -> str:
    """Returns `text`.

    Raises:
        ValueError: If it is empty or holds white space only.
    """
    if not text.strip():
        raise ValueError(f"{field} is {text[:20]!r}; it must hold at least 1 visible character")
    return text


def check_token_count(field: str, count: int, limit: int) -> None:
    """Raises `ValueError` if a text holds more tokens, special ones included, than `limit`."""
    if count > limit:
        raise ValueError(f"{field} holds {count} tokens; the limit is {limit}")


def check_priority(text: str) -> str:
    """Returns a priority.

    Raises:
        ValueError: If it is not one of `PRIORITIES`.
    """
    if text not in PRIORITIES:
        raise ValueError(f"PRIORITY is {text!r}; it must be one of {', '.join(PRIORITIES)}")
    return text


def check_seed(value: Any) -> int:
    """Returns a seed.

    Raises:
        ValueError: If it is not in [0, 2⁶³).
    """
    seed = int(value)
    if not 0 <= seed <= MAX_SEED:
        raise ValueError(f"SEED is {seed}; the limits are 0 to {MAX_SEED}")
    return seed


def check_int(field: str, value: Any, limit: IntRange) -> int:
    """Returns an integer field, or its default if `value` is None.

    Raises:
        ValueError: If it is out of range, or not a multiple of `multiple_of`.
    """
    if value is None:
        return limit.default
    number = int(value)
    if not limit.low <= number <= limit.high:
        raise ValueError(f"{field} is {number}; the limits are {limit.low} to {limit.high}")
    if (number - limit.offset) % limit.multiple_of:
        plus = f" plus {limit.offset}" if limit.offset else ""
        raise ValueError(
            f"{field} is {number}; it must be a multiple of {limit.multiple_of}{plus} "
            f"from {limit.low} to {limit.high}"
        )
    return number


def check_float(field: str, value: Any, limit: FloatRange) -> float:
    """Returns a real field, or its default if `value` is None.

    Raises:
        ValueError: If it is NaN, infinite or out of range.
    """
    if value is None:
        return limit.default
    number = float(value)
    if not math.isfinite(number) or not limit.low <= number <= limit.high:
        raise ValueError(f"{field} is {number:g}; the limits are {limit.low:g} to {limit.high:g}")
    return number
