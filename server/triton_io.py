"""Between Triton's requests and NumPy; importable inside a Triton stage only."""

from __future__ import annotations

import traceback
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import triton_python_backend_utils as pb_utils
from numpy.typing import NDArray

from reelserve.server.errors import CancelledError, StageError, UnavailableError

_CODES = (
    (ValueError, "INVALID_ARG"),
    (UnavailableError, "UNAVAILABLE"),
    (CancelledError, "CANCELLED"),
)
"""Names of members of `TritonError`, which Triton adds to its module after this one's import."""

SHUTTING_DOWN = "Server not ready"
"""How Triton answers a stage's call to another one once it was told to end."""


def input_arrays(request: Any) -> dict[str, NDArray[Any]]:
    """Every input of a request by name; optional ones that were left out are absent."""
    return {tensor.name(): tensor.as_numpy() for tensor in request.inputs()}


def response(outputs: Mapping[str, NDArray[Any]]) -> Any:
    """A response that holds `outputs`."""
    return pb_utils.InferenceResponse(
        [pb_utils.Tensor(name, np.ascontiguousarray(array)) for name, array in outputs.items()]
    )


def error_response(error: Exception) -> Any:
    """A response that says what went wrong and nothing of how this package is built.

    What the caller did not cause is logged with its stack trace.
    """
    message = f"{type(error).__name__}: {error}"
    code = "INTERNAL"
    for kind, kind_code in _CODES:
        if isinstance(error, kind):
            message, code = str(error), kind_code
    if code == "INTERNAL":
        pb_utils.Logger.log_error("".join(traceback.format_exception(error)))
    return pb_utils.InferenceResponse(
        error=pb_utils.TritonError(message, getattr(pb_utils.TritonError, code))
    )


def check_not_cancelled(request: Any) -> None:
    """Raises `CancelledError` if nobody waits for the answer any more."""
    if request.is_cancelled():
        raise CancelledError("the request was cancelled")


def check_not_sequence(request: Any) -> None:
    """Raises `ValueError` if a request carries a sequence id or flag.

    `video_diffusion` is a sequence to Triton, so two requests with one id would be taken for
    one, and a request that says it is the end of a sequence would never be answered.
    """
    if request.correlation_id() or request.flags():
        raise ValueError(
            f"sequence_id is {request.correlation_id()}; the limit is none: text_to_video takes "
            "single requests, without sequence_id, sequence_start and sequence_end"
        )


def call_model(
    name: str, inputs: Mapping[str, NDArray[Any]], outputs: Sequence[str]
) -> dict[str, NDArray[Any]]:
    """Calls another model of the repository and waits for it.

    Args:
        name: The model.
        inputs: By name.
        outputs: Names of those that are wanted.

    Raises:
        UnavailableError: If the server is shutting down.
        StageError: If the model fails.
    """
    reply = pb_utils.InferenceRequest(
        model_name=name,
        requested_output_names=list(outputs),
        inputs=[pb_utils.Tensor(key, np.ascontiguousarray(array)) for key, array in inputs.items()],
    ).exec()
    if reply.has_error():
        message = reply.error().message()
        if SHUTTING_DOWN in message:
            raise UnavailableError(f"{name}: the server is shutting down")
        raise StageError(f"{name}: {message}")
    # Copies: the arrays of a reply live in shared memory that ends with it.
    return {tensor.name(): tensor.as_numpy().copy() for tensor in reply.output_tensors()}
