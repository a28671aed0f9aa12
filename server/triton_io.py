"""Between Triton's requests and NumPy; importable inside a Triton stage only."""

from __future__ import annotations

import traceback
from collections.abc import Mapping
from typing import Any

import numpy as np
import triton_python_backend_utils as pb_utils
from numpy.typing import NDArray

from reelserve.server.errors import CancelledError, OverCapacityError

_CODES = (
    (ValueError, "INVALID_ARG"),
    (OverCapacityError, "UNAVAILABLE"),
    (CancelledError, "CANCELLED"),
)
"""Names of members of `TritonError`, which Triton adds to its module after this one's import."""


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
