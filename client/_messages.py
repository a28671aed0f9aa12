"""Triton's messages: the one place where they are built and read."""

from __future__ import annotations

import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from numpy.typing import NDArray
from tritonclient.grpc import service_pb2
from tritonclient.utils import np_to_triton_dtype, serialize_byte_tensor

from reelserve.client._video import Video, VideoInfo
from reelserve.pipeline import contract

MICROSECONDS_PER_SECOND = 1_000_000
LENGTH = struct.Struct("<I")
"""Stands before the text in a BYTES tensor of one element."""

AnswerT = TypeVar("AnswerT")


@dataclass(frozen=True)
class UnaryCall(Generic[AnswerT]):
    """A call with one answer, as both clients make it.

    Args:
        method: Method of Triton's service.
        message: The request.
        read: Reads the answer; raises `ValueError` for one that is not what it must be.
    """

    method: str
    message: Any
    read: Callable[[Any], AnswerT]


def infer_request(
    model: str, tensors: Mapping[str, NDArray[Any]], timeout_s: float, *, events: bool
) -> service_pb2.ModelInferRequest:
    """The message that asks for a clip.

    Args:
        model: Model that is asked.
        tensors: Inputs by name.
        timeout_s: Told to the server, which gives up what cannot be ready by then.
        events: Whether events are told on the way, or only that the server lives.
    """
    request = service_pb2.ModelInferRequest(model_name=model)
    request.parameters["timeout"].int64_param = int(timeout_s * MICROSECONDS_PER_SECOND)
    request.parameters[contract.PROGRESS if events else contract.HEARTBEAT].bool_param = True
    for name, tensor in tensors.items():
        datatype = np_to_triton_dtype(tensor.dtype)
        request.inputs.add(name=name, datatype=datatype, shape=tensor.shape)
        raw = serialize_byte_tensor(tensor).item() if datatype == "BYTES" else tensor.tobytes()
        request.raw_input_contents.append(raw)
    return request


def server_live_call() -> UnaryCall[bool]:
    """Asks whether the server lives."""
    return UnaryCall(
        "ServerLive", service_pb2.ServerLiveRequest(), lambda answer: bool(answer.live)
    )


def server_ready_call() -> UnaryCall[bool]:
    """Asks whether the server takes requests."""
    return UnaryCall(
        "ServerReady", service_pb2.ServerReadyRequest(), lambda answer: bool(answer.ready)
    )


def model_ready_call(model: str) -> UnaryCall[bool]:
    """Asks whether a model is served."""
    message = service_pb2.ModelReadyRequest(name=model)
    return UnaryCall("ModelReady", message, lambda answer: bool(answer.ready))


def texts(response: service_pb2.ModelInferResponse) -> dict[str, bytes]:
    """Outputs of an answer by name; each must be a BYTES tensor of one element.

    Raises:
        ValueError: If one is not.
    """
    outputs, raws = response.outputs, response.raw_output_contents
    if len(outputs) != len(raws):
        raise ValueError(f"the answer names {len(outputs)} outputs and holds {len(raws)}")
    return {output.name: _text(output, raw) for output, raw in zip(outputs, raws, strict=True)}


def read_video(outputs: Mapping[str, bytes]) -> Video:
    """The clip in an answer.

    Raises:
        ValueError: If there is none, or it cannot be read.
    """
    mp4, info = (outputs.get(spec.name) for spec in (contract.VIDEO, contract.INFO))
    if mp4 is None or info is None:
        raise ValueError("the answer lacks VIDEO or INFO")
    return Video(mp4=mp4, info=VideoInfo.from_json(info))


def _text(output: Any, raw: bytes) -> bytes:
    if output.datatype == "BYTES" and len(raw) >= LENGTH.size:
        (length,) = LENGTH.unpack_from(raw)
        if length == len(raw) - LENGTH.size:
            return raw[LENGTH.size :]
    raise ValueError(f"{output.name} is not a text")
