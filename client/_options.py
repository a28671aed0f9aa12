"""The options of a clip: what may be asked, and the tensors that ask for it."""

from __future__ import annotations

import functools
import inspect
import math
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, Concatenate, Literal, ParamSpec, TypedDict, TypeVar, cast

import numpy as np
from numpy.typing import NDArray

from reelserve.client._exceptions import InvalidArgumentError
from reelserve.pipeline import contract
from reelserve.pipeline.request import check_seed

MAX_TIMEOUT_S = 1e9
"""Some thirty years: what gRPC's clocks can still count."""

MAX_SHOWN_BITS = 256
"""Longest number that an error repeats in full."""

Integer = int | np.integer[Any]
Real = float | np.floating[Any] | np.integer[Any]
Priority = Literal["interactive", "batch"]

_NUMPY_DTYPES: dict[str, type[np.generic]] = {
    "STRING": np.object_,
    "INT64": np.int64,
    "INT32": np.int32,
    "FP32": np.float32,
}

ClientT = TypeVar("ClientT")
ReturnT = TypeVar("ReturnT")
P = ParamSpec("P")


class GenerateOptions(TypedDict, total=False):
    """The options of `generate` and `stream` as a dictionary: `client.generate(text, **options)`.

    `help(Client.generate)` says what each of them means.
    """

    negative_prompt: str | None
    seed: Integer | None
    num_inference_steps: Integer | None
    guidance_scale: Real | None
    num_frames: Integer | None
    fps: Integer | None
    height: Integer | None
    width: Integer | None
    priority: Priority | None
    timeout_s: Real | None
    max_retries: Integer | None


@dataclass(frozen=True)
class ClipRequest:
    """A checked request.

    Args:
        tensors: Inputs by name, `[1]` each.
        timeout_s: Bound on the whole call; None takes the client's.
        max_retries: Attempts after a refusal; None takes the client's.
    """

    tensors: dict[str, NDArray[Any]]
    timeout_s: float | None
    max_retries: int | None


def clip_request(
    prompt: str,
    *,
    negative_prompt: str | None = None,
    seed: Integer | None = None,
    num_inference_steps: Integer | None = None,
    guidance_scale: Real | None = None,
    num_frames: Integer | None = None,
    fps: Integer | None = None,
    height: Integer | None = None,
    width: Integer | None = None,
    priority: Priority | None = None,
    timeout_s: Real | None = None,
    max_retries: Integer | None = None,
) -> ClipRequest:
    """Checks a request and builds its tensors.

    Ranges belong to the checkpoint that is served, so the server checks them; here a value need
    only fit its tensor.

    Args:
        prompt: Sentence that the clip shows; bundled checkpoint: up to 500 characters. Where a
            checkpoint says what it knows by name, `capabilities().vocabulary` lists it.
        negative_prompt: What the clip should not show, as long as the prompt may be; nothing if
            left out. It is read where `guidance_scale` is above 1.
        seed: Seed of the noise, 0 to 2⁶³ − 1; the same seed gives the same clip. The server draws
            one if left out, and tells it in `Video.info`.
        num_inference_steps: Denoising steps; bundled checkpoint: 1 to 50, 8 if left out.
        guidance_scale: How closely the prompt is followed; 1 disables it. Bundled checkpoint: 1 to
            20, 2.5 if left out.
        num_frames: Frames of the clip; bundled checkpoint: 16 to 240 in multiples of 4, 80 if
            left out.
        fps: Frames per second; bundled checkpoint: 1 to 60, 8 if left out.
        height: Rows of a frame in pixels; bundled checkpoint: 256.
        width: Columns of a frame in pixels; bundled checkpoint: 256.
        priority: `interactive`, or `batch`, which lets those pass; interactive if left out.
        timeout_s: Seconds until `DeadlineExceededError`, above 0 and at most 10⁹; the client's own
            bound if left out. The server is told, and refuses what cannot be ready by then.
        max_retries: How often a request that a full server has refused is sent again, 0 or more,
            within `timeout_s`; the client's own number if left out.

    The ranges of another checkpoint are told by `capabilities()`.

    Raises:
        InvalidArgumentError: If a value does not fit; the message names field, value and limit.
        TypeError: If there is no such option.
    """
    values: dict[str, Any] = dict(
        prompt=_present("PROMPT", prompt),
        negative_prompt=negative_prompt,
        seed=seed,
        num_inference_steps=num_inference_steps,
        guidance_scale=guidance_scale,
        num_frames=num_frames,
        fps=fps,
        height=height,
        width=width,
        priority=priority,
    )
    return ClipRequest(
        tensors={
            spec.name: _tensor(spec, values[spec.name.lower()])
            for spec in contract.REQUEST_INPUTS
            if values[spec.name.lower()] is not None
        },
        timeout_s=None if timeout_s is None else check_timeout_s(timeout_s),
        max_retries=None if max_retries is None else check_max_retries(max_retries),
    )


def takes_options(
    build: Callable[P, ClipRequest],
) -> Callable[
    [Callable[[ClientT, ClipRequest], ReturnT]], Callable[Concatenate[ClientT, P], ReturnT]
]:
    """Gives a method the parameters of `build`, and their part of its help.

    The options are written down once, while every method shows all of them to `help`, to editors
    and to type checkers.

    Args:
        build: Makes the request that the method is then called with.
    """

    def decorate(
        method: Callable[[ClientT, ClipRequest], ReturnT],
    ) -> Callable[Concatenate[ClientT, P], ReturnT]:
        signature = _signature(method, build)

        def built(*args: P.args, **options: P.kwargs) -> ClipRequest:
            try:
                signature.bind(None, *args, **options)
            except TypeError as error:
                raise TypeError(f"{method.__name__}() {error}") from None
            return build(*args, **options)

        @functools.wraps(method)
        def call(self: ClientT, *args: P.args, **options: P.kwargs) -> ReturnT:
            return method(self, built(*args, **options))

        @functools.wraps(method)
        async def call_later(self: ClientT, *args: P.args, **options: P.kwargs) -> Any:
            return await cast(Awaitable[Any], method(self, built(*args, **options)))

        made: Any = call_later if inspect.iscoroutinefunction(method) else call
        made.__signature__ = signature
        made.__doc__ = _docstring(method, build)
        return cast(Callable[Concatenate[ClientT, P], ReturnT], made)

    return decorate


def check_timeout_s(value: Any) -> float:
    """Returns seconds to wait.

    Raises:
        InvalidArgumentError: If they are not above 0 and at most `MAX_TIMEOUT_S`.
    """
    if not _is_real(value) or not 0 < value <= MAX_TIMEOUT_S:
        raise InvalidArgumentError(
            f"timeout_s is {_shown(value)}; it must be a number of seconds above 0 and at most "
            f"{MAX_TIMEOUT_S:g}"
        )
    return float(value)


def check_max_retries(value: Any) -> int:
    """Returns a number of retries.

    Raises:
        InvalidArgumentError: If it is not a whole number of at least 0.
    """
    if not _is_whole(value) or value < 0:
        raise InvalidArgumentError(
            f"max_retries is {_shown(value)}; it must be a whole number of at least 0"
        )
    return int(value)


def _signature(method: Callable[..., Any], build: Callable[..., Any]) -> inspect.Signature:
    """The signature of `method` with the parameters of `build` in place of the request."""
    signature = inspect.signature(method)
    (self, _), options = signature.parameters.values(), inspect.signature(build).parameters
    return signature.replace(parameters=[self, *options.values()])


def _docstring(method: Callable[..., Any], build: Callable[..., Any]) -> str:
    """The docstring of `method` with the arguments of `build` before what it raises."""
    first, _, raised = inspect.cleandoc(method.__doc__ or "").partition("\n\nRaises:")
    _, _, arguments = inspect.cleandoc(build.__doc__ or "").partition("\n\nArgs:")
    arguments, _, raised_before = arguments.partition("\n\nRaises:")
    return f"{first}\n\nArgs:{arguments}\n\nRaises:{raised_before.rstrip()}{raised}"


def _present(field: str, value: Any) -> Any:
    if value is None:
        raise InvalidArgumentError(f"{field} is None; it must be a string")
    return value


def _tensor(spec: contract.TensorSpec, value: Any) -> NDArray[Any]:
    dtype = _NUMPY_DTYPES[spec.dtype]
    if dtype is np.object_:
        return np.array([_utf8(spec.name, value)], np.object_)
    if issubclass(dtype, np.integer):
        return np.array([_integer(spec, value, np.iinfo(dtype))], dtype)
    if not _is_real(value):
        raise InvalidArgumentError(f"{spec.name} is {_shown(value)}; it must be a number")
    return np.array([_float32(value)], dtype)


def _float32(value: Any) -> float:
    """A number for FP32; too large becomes infinite, which the server refuses with its limits."""
    try:
        with np.errstate(over="ignore"):
            return float(np.float32(value))
    except OverflowError:
        return math.inf if value > 0 else -math.inf


def _utf8(field: str, value: Any) -> bytes:
    if not isinstance(value, str):
        raise InvalidArgumentError(f"{field} is {_shown(value)}; it must be a string")
    try:
        return value.encode()
    except UnicodeEncodeError as error:
        raise InvalidArgumentError(
            f"{field} holds {value[error.start]!r} at position {error.start}; it must be UTF-8"
        ) from None


def _integer(spec: contract.TensorSpec, value: Any, held: np.iinfo[Any]) -> int:
    field = spec.name
    if not _is_whole(value):
        raise InvalidArgumentError(f"{field} is {_shown(value)}; it must be a whole number")
    if spec is contract.SEED and int(value).bit_length() <= MAX_SHOWN_BITS:
        return _seed(value)
    if not held.min <= value <= held.max:
        # The limits are those of a checkpoint, which the server knows.
        raise InvalidArgumentError(
            f"{field} is {_shown(value)}, which {spec.dtype} does not hold; `capabilities()` tells "
            "the limits"
        )
    return int(value)


def _seed(value: Any) -> int:
    try:
        return check_seed(value)
    except ValueError as error:
        raise InvalidArgumentError(str(error)) from None


def _is_whole(value: Any) -> bool:
    return isinstance(value, (int, np.integer)) and not isinstance(value, bool)


def _is_real(value: Any) -> bool:
    return _is_whole(value) or isinstance(value, (float, np.floating))


def _shown(value: Any, most: int = 60) -> str:
    """A caller's value in an error: no book, and NumPy's scalars as plain numbers."""
    try:
        text = str(value) if isinstance(value, np.generic) else repr(value)
    except ValueError:
        # Python writes no number of thousands of digits.
        return f"a number of {int(value).bit_length()} bits"
    return text if len(text) <= most else text[:most] + "…"
