"""Builds the public request from Python values."""

from __future__ import annotations

from typing import Any, Literal, TypedDict, cast

import numpy as np
from numpy.typing import NDArray

from reelserve.client._exceptions import InvalidArgumentError
from reelserve.pipeline import contract

_NUMPY_DTYPES: dict[str, type[np.generic]] = {
    "STRING": np.object_,
    "INT64": np.int64,
    "INT32": np.int32,
    "FP32": np.float32,
}


class GenerateOptions(TypedDict, total=False):
    """Optional fields of a request; what is left out or None takes the server's default.

    Args:
        negative_prompt: What the clip should not show.
        seed: Of the noise; the same seed gives the same clip. Drawn by the server if left out.
        num_inference_steps: Denoising steps.
        guidance_scale: How closely the prompt is followed; 1 disables guidance.
        num_frames: Frames of the clip.
        fps: Frames per second.
        height: Pixels.
        width: Pixels.
        priority: `interactive`, or `batch`, which lets those pass; interactive if left out.
        timeout_s: Seconds until `DeadlineExceededError`; the client's own bound if left out. The
            server is told, and refuses what cannot be ready by then.
        max_retries: How often a request that the server has refused for want of a place is sent
            again, within `timeout_s`; the client's own number if left out.
    """

    negative_prompt: str | None
    seed: int | None
    num_inference_steps: int | None
    guidance_scale: float | None
    num_frames: int | None
    fps: int | None
    height: int | None
    width: int | None
    priority: Literal["interactive", "batch"] | None
    timeout_s: float | None
    max_retries: int | None


def request_tensors(prompt: str, options: GenerateOptions) -> dict[str, NDArray[Any]]:
    """The request's tensors by name, `[1]` each.

    Ranges are the server's to check: they belong to the checkpoint that it serves. Here a value
    need only fit its tensor.

    Raises:
        InvalidArgumentError: If a value does not fit its tensor.
        TypeError: If there is no such option.
    """
    values = cast(dict[str, Any], {**options})
    unknown = sorted(set(values) - set(GenerateOptions.__annotations__))
    if unknown:
        raise TypeError(
            f"generate() has no option {unknown[0]!r}; "
            f"it has {', '.join(GenerateOptions.__annotations__)}"
        )
    values["prompt"] = prompt
    return {
        spec.name: _tensor(spec, values[spec.name.lower()])
        for spec in contract.REQUEST_INPUTS
        if values.get(spec.name.lower()) is not None
    }


def _tensor(spec: contract.TensorSpec, value: Any) -> NDArray[Any]:
    dtype = _NUMPY_DTYPES[spec.dtype]
    if dtype is np.object_:
        return np.array([_utf8(spec.name, value)], np.object_)
    if issubclass(dtype, np.integer):
        return np.array([_integer(spec.name, value, np.iinfo(dtype))], dtype)
    if not isinstance(value, (int, float, np.number)):
        raise InvalidArgumentError(f"{spec.name} is {value!r}; it must be a number")
    # Too large for FP32 becomes infinite, which the server refuses with its limits.
    with np.errstate(over="ignore"):
        return np.array([value], dtype)


def _utf8(field: str, value: Any) -> bytes:
    if not isinstance(value, str):
        raise InvalidArgumentError(f"{field} is {value!r}; it must be a string")
    try:
        return value.encode()
    except UnicodeEncodeError as error:
        raise InvalidArgumentError(
            f"{field} holds {value[error.start]!r} at position {error.start}; it must be UTF-8"
        ) from None


def _integer(field: str, value: Any, limits: np.iinfo[Any]) -> int:
    if isinstance(value, bool) or not isinstance(value, (int, np.integer)):
        raise InvalidArgumentError(f"{field} is {value!r}; it must be a whole number")
    if not limits.min <= value <= limits.max:
        raise InvalidArgumentError(
            f"{field} is {value}; the limits are {limits.min} to {limits.max}"
        )
    return int(value)
