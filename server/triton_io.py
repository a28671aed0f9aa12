"""Converts between Triton's requests and NumPy arrays; importable inside a Triton stage only."""

from __future__ import annotations

import time
import traceback
from collections.abc import Callable, Sequence
from typing import Any, NoReturn

import numpy as np
import triton_python_backend_utils as pb_utils
from numpy.typing import NDArray

from reelserve.server.device_tensor import AnyTensor, AnyTensors
from reelserve.server.errors import (
    CalledStageError,
    ClipCancelledError,
    StageUnavailableError,
    public_message,
)
from reelserve.server.progress import ProgressFolder

_CODES = (
    (ValueError, "INVALID_ARGUMENT"),
    (StageUnavailableError, "UNAVAILABLE"),
    (ClipCancelledError, "CANCELLED"),
)
"""Names of gRPC statuses."""
_TRITON_NAMES = {"INVALID_ARGUMENT": "INVALID_ARG"}
"""Names of `TritonError`'s members, where they differ from those of gRPC."""

CALL_ID_PREFIX = "reelserve-call:"
"""Beginning of the id of a request from stage to stage; the clip's key may follow."""

INTERNAL = "INTERNAL"
SHUTTING_DOWN = "Server not ready"
"""How Triton answers a stage's call to another one once it was told to end."""


def input_arrays(request: pb_utils.InferenceRequest) -> dict[str, NDArray[Any]]:
    """Every input of a request by name; optional ones that were left out are absent."""
    return {tensor.name(): tensor.as_numpy() for tensor in request.inputs()}


def input_tensors(request: pb_utils.InferenceRequest) -> dict[str, AnyTensor]:
    """Every input of a request by name; those that lie on a GPU stay there."""
    return {tensor.name(): _read(tensor) for tensor in request.inputs()}


def response(outputs: AnyTensors) -> pb_utils.InferenceResponse:
    """A response that holds `outputs`."""
    return pb_utils.InferenceResponse(_written(outputs))


def _read(tensor: pb_utils.Tensor) -> AnyTensor:
    """Triton's tensor itself where it lies on a GPU, since NumPy cannot see it there."""
    return tensor.as_numpy() if tensor.is_cpu() else tensor


def _written(tensors: AnyTensors) -> list[pb_utils.Tensor]:
    """Triton's tensors. One on a GPU is not copied: both have it until the last of them goes."""
    return [
        pb_utils.Tensor(name, np.ascontiguousarray(tensor))
        if isinstance(tensor, np.ndarray)
        # From a capsule where there is one: then no call of CUDA is made here.
        else pb_utils.Tensor.from_dlpack(
            name, tensor.to_dlpack() if hasattr(tensor, "to_dlpack") else tensor
        )
        for name, tensor in tensors.items()
    ]


def error_response(
    error: Exception, request: pb_utils.InferenceRequest, stage: str
) -> pb_utils.InferenceResponse:
    """A response that says what went wrong and nothing of how this package is built.

    What the caller did not cause is logged with its stack trace.

    Args:
        error: What went wrong.
        request: Request that it answers. Triton hands no code on to a stage that calls, so for
            one the code stands before the message.
        stage: Named in what the caller did not cause.
    """
    message, code = public_message(error), INTERNAL
    for kind, kind_code in _CODES:
        if isinstance(error, kind):
            message, code = str(error), kind_code
    if code == INTERNAL:
        pb_utils.Logger.log_error("".join(traceback.format_exception(error)))
        message = message if isinstance(error, CalledStageError) else f"{stage}: {message}"
    if request.request_id().startswith(CALL_ID_PREFIX):
        message = f"{code}: {message}"
    # Triton adds the members to its module after this one's import.
    member = getattr(pb_utils.TritonError, _TRITON_NAMES.get(code, code))
    return pb_utils.InferenceResponse(error=pb_utils.TritonError(message, member))


def answer_each(
    requests: Sequence[pb_utils.InferenceRequest],
    stage: str,
    progress: ProgressFolder,
    compute: Callable[[pb_utils.InferenceRequest], AnyTensors],
) -> list[pb_utils.InferenceResponse]:
    """Answers every request by itself, with its outputs or its error.

    Args:
        requests: Requests as Triton hands them over.
        stage: Stage that answers.
        progress: Told that the stage has ended.
        compute: Gives the outputs of a request.
    """
    return [_answer(request, stage, progress, compute) for request in requests]


def _answer(
    request: pb_utils.InferenceRequest,
    stage: str,
    progress: ProgressFolder,
    compute: Callable[[pb_utils.InferenceRequest], AnyTensors],
) -> pb_utils.InferenceResponse:
    began = time.monotonic()
    try:
        progress.check_not_cancelled(clip_key(request))
        answer = response(compute(request))
        progress.stage_ended(clip_key(request), stage, began)
        return answer
    except Exception as error:
        return error_response(error, request, stage)


def clip_key(request: pb_utils.InferenceRequest) -> str:
    """The key under which the front end is told about the clip; any text from other callers."""
    return request.request_id().removeprefix(CALL_ID_PREFIX)


def call_model(
    name: str, inputs: AnyTensors, outputs: Sequence[str], key: str = ""
) -> dict[str, NDArray[Any]]:
    """Calls another model of the repository and waits for it.

    Args:
        name: The model.
        inputs: By name.
        outputs: Names of those that are wanted.
        key: Key of the clip that the call is for.

    Returns:
        By name, in the host's memory, wherever the model has computed.

    Raises:
        ValueError: If the model refuses its inputs.
        StageUnavailableError: If it is full, or the server is shutting down.
        ClipCancelledError: If it found the request cancelled.
        StageError: If it fails.
    """
    memory = pb_utils.PreferredMemory(pb_utils.TRITONSERVER_MEMORY_CPU, 0)
    return _exec(name, inputs, outputs, key, preferred_memory=memory)


def call_model_in_place(
    name: str, inputs: AnyTensors, outputs: Sequence[str], key: str
) -> dict[str, AnyTensor]:
    """As `call_model`, but what the model leaves on a GPU stays there.

    It is freed when the last reference to it goes.
    """
    return _exec(name, inputs, outputs, key)


def _exec(
    name: str, inputs: AnyTensors, outputs: Sequence[str], key: str, **options: Any
) -> dict[str, Any]:
    reply = pb_utils.InferenceRequest(
        model_name=name,
        request_id=CALL_ID_PREFIX + key,
        requested_output_names=list(outputs),
        inputs=_written(inputs),
        **options,
    ).exec()
    if reply.has_error():
        raise_error(name, reply.error().message())
    read = {tensor.name(): _read(tensor) for tensor in reply.output_tensors()}
    # Copies: the arrays of a reply live in shared memory that ends with it.
    return {
        key: tensor.copy() if isinstance(tensor, np.ndarray) else tensor
        for key, tensor in read.items()
    }


def raise_error(name: str, message: str) -> NoReturn:
    """Raises the error that another model answered with, as the exception that it was there.

    A caller's mistake, a full stage and a cancelled request keep their own words.
    """
    if SHUTTING_DOWN in message:
        raise StageUnavailableError(f"{name}: the server is shutting down")
    code, _, words = message.partition(": ")
    for kind, kind_code in _CODES:
        if code == kind_code:
            raise kind(words)
    raise CalledStageError(words if code == INTERNAL else f"{name}: {message}")
