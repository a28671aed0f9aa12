"""Converts between Triton's gRPC messages and NumPy arrays.

What a caller sends is read tensor by tensor and written anew for Triton: nothing else of it, no
sequence id, no shared memory and no parameter, gets there.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import grpc
import numpy as np
from google.protobuf.message import DecodeError
from numpy.typing import NDArray
from tritonclient.grpc import service_pb2

from reelserve.pipeline.checkpoint import CheckpointSpec
from reelserve.pipeline.contract import (
    HEARTBEAT,
    INFO,
    PROGRESS,
    PUBLIC_MODEL,
    REQUEST_INPUTS,
    VIDEO,
)
from reelserve.server.frontend.call_errors import CallError, invalid

MODEL_VERSION = "1"
MICROSECONDS_PER_SECOND = 1_000_000
LENGTH = struct.Struct("<I")
"""Before every text in the bytes of a STRING tensor."""
MAX_ID_CHARACTERS = 1000
SPECS = {spec.name: spec for spec in REQUEST_INPUTS}
DTYPES: dict[str, type[np.generic]] = {"INT64": np.int64, "INT32": np.int32, "FP32": np.float32}
CONTENTS = {
    "INT64": "int64_contents",
    "INT32": "int_contents",
    "FP32": "fp32_contents",
    "STRING": "bytes_contents",
}
OUTPUTS = (VIDEO.name, INFO.name)

Tensors = dict[str, NDArray[Any]]


@dataclass(frozen=True)
class InferRequest:
    """A request for a clip, as a caller sent it.

    Args:
        id: The caller's own, which comes back.
        tensors: Public inputs by name, one element each.
        outputs: Names of those that are wanted; empty for all.
        timeout_s: Value of the parameter `timeout`; None waits for ever.
        progress: Whether a stream tells events on the way.
        heartbeat: Whether a stream tells every second that it lives.
    """

    id: str
    tensors: Tensors
    outputs: tuple[str, ...]
    timeout_s: float | None
    progress: bool
    heartbeat: bool = False


def parse(raw: bytes) -> service_pb2.ModelInferRequest:
    """Reads a message.

    Raises:
        CallError: If it is none, or asks for another model.
    """
    try:
        message = service_pb2.ModelInferRequest.FromString(raw)
    except DecodeError:
        raise invalid(f"the {len(raw)} bytes of the message are no ModelInferRequest") from None
    name = message.model_name
    if name != PUBLIC_MODEL:
        raise CallError(
            grpc.StatusCode.PERMISSION_DENIED,
            f"model_name is {shown(name)}; only {PUBLIC_MODEL} may be called",
        )
    if message.model_version not in ("", MODEL_VERSION):
        raise CallError(
            grpc.StatusCode.NOT_FOUND,
            f"model_version is {shown(message.model_version)}; {PUBLIC_MODEL} has version "
            f"{MODEL_VERSION}",
        )
    return message


def read_request(message: service_pb2.ModelInferRequest) -> InferRequest:
    """Reads a request; values are checked elsewhere.

    Raises:
        CallError: If a tensor, a parameter or an output is not what it must be.
    """
    if len(message.id) > MAX_ID_CHARACTERS:
        raise invalid(f"id holds {len(message.id)} characters; the limit is {MAX_ID_CHARACTERS}")
    outputs = tuple(output.name for output in message.outputs)
    for output in message.outputs:
        if output.name not in OUTPUTS:
            raise invalid(f"output {shown(output.name)} is not one of {', '.join(OUTPUTS)}")
        _check_parameters(output.name, output.parameters)
    return InferRequest(
        id=message.id,
        tensors=_tensors(message),
        outputs=outputs,
        timeout_s=_timeout_s(message.parameters),
        progress=_flag(message.parameters, PROGRESS),
        heartbeat=_flag(message.parameters, HEARTBEAT),
    )


def upstream_request(tensors: Mapping[str, NDArray[Any]], key: str) -> Any:
    """The request that Triton gets: checked tensors, and the clip's key as its id."""
    return infer_message(PUBLIC_MODEL, tensors, key)


def infer_message(model: str, tensors: Mapping[str, NDArray[Any]], request_id: str) -> Any:
    """A request to a model of Triton."""
    message = service_pb2.ModelInferRequest(model_name=model, id=request_id)
    for name, array in tensors.items():
        texts = array.dtype == np.object_
        datatype = "BYTES" if texts else _datatype(array)
        message.inputs.add(name=name, datatype=datatype, shape=array.shape)
        message.raw_input_contents.append(_text(array.item()) if texts else array.tobytes())
    return message


def output_arrays(message: service_pb2.ModelInferResponse) -> Tensors:
    """Outputs of an answer of Triton by name; a STRING output of one element as `[1]`."""
    arrays: Tensors = {}
    for output, raw in zip(message.outputs, message.raw_output_contents, strict=True):
        if output.datatype == "BYTES":
            arrays[output.name] = np.array([raw[LENGTH.size :]], np.object_)
        else:
            dtype = np.uint8 if output.datatype == "UINT8" else DTYPES[output.datatype]
            arrays[output.name] = np.frombuffer(raw, dtype).reshape(tuple(output.shape))
    return arrays


def answer(
    outputs: Mapping[str, bytes], request_id: str, wanted: Sequence[str] = (), *, last: bool = True
) -> service_pb2.ModelInferResponse:
    """An answer to a caller.

    Args:
        outputs: Texts by name.
        request_id: The caller's.
        wanted: Names of the outputs; empty for all.
        last: Whether it ends the request.
    """
    message = service_pb2.ModelInferResponse(
        model_name=PUBLIC_MODEL, model_version=MODEL_VERSION, id=request_id
    )
    message.parameters["triton_final_response"].bool_param = last
    for name, content in outputs.items():
        if not wanted or name in wanted:
            message.outputs.add(name=name, datatype="BYTES", shape=[1])
            message.raw_output_contents.append(_text(content))
    return message


def capabilities(checkpoint: CheckpointSpec) -> str:
    """What a caller may know of the served checkpoint, as JSON."""
    known = {"checkpoint": checkpoint.name, "engine": checkpoint.engine}
    vocabulary = dict(checkpoint.vocabulary)
    return json.dumps({**known, "limits": asdict(checkpoint.limits), "vocabulary": vocabulary})


def with_seconds(info: bytes, seconds: Mapping[str, float]) -> bytes:
    """INFO with the seconds of the stages."""
    return json.dumps({**json.loads(info), "seconds": dict(seconds)}).encode()


def shown(text: str, most: int = 60) -> str:
    """A caller's text for an error message: quoted, and cut short."""
    return repr(text if len(text) <= most else text[:most] + "…")


def _tensors(message: service_pb2.ModelInferRequest) -> Tensors:
    raw = message.raw_input_contents
    if raw and len(raw) != len(message.inputs):
        raise invalid(
            f"raw_input_contents holds {len(raw)} tensors; the request names {len(message.inputs)}"
        )
    tensors: Tensors = {}
    for index, tensor in enumerate(message.inputs):
        name = tensor.name
        if name not in SPECS:
            raise invalid(f"input {shown(name)} is not one of {', '.join(SPECS)}")
        if name in tensors:
            raise invalid(f"{name} is there twice; it must be there once")
        _check_parameters(name, tensor.parameters)
        tensors[name] = _tensor(tensor, raw[index] if raw else None)
    return tensors


def _tensor(tensor: Any, raw: bytes | None) -> NDArray[Any]:
    name, dtype, shape = tensor.name, SPECS[tensor.name].dtype, list(tensor.shape)
    datatype = "BYTES" if dtype == "STRING" else dtype
    if tensor.datatype != datatype:
        raise invalid(f"{name} has datatype {shown(tensor.datatype)}; it must be {datatype}")
    if len(shape) != 1 or shape[0] < 0:
        raise invalid(f"{name} has shape {shape[:8]}; it must be [1]")
    if shape[0] == 0:
        raise invalid(f"{name} holds 0 elements; it must hold 1")
    if shape[0] > 1:
        raise invalid(f"{name} holds {shape[0]} elements; the limit is 1")
    if raw is None:
        return _of_contents(tensor, dtype)
    if tensor.HasField("contents"):
        raise invalid(f"{name} has contents beside raw_input_contents; it must have one of them")
    if dtype == "STRING":
        return np.array([_read_text(name, raw)], np.object_)
    size = np.dtype(DTYPES[dtype]).itemsize
    if len(raw) != size:
        raise invalid(f"{name} holds {len(raw)} bytes; one element of {dtype} has {size}")
    return np.frombuffer(raw, DTYPES[dtype])


def _of_contents(tensor: Any, dtype: str) -> NDArray[Any]:
    values = getattr(tensor.contents, CONTENTS[dtype])
    if len(values) != 1:
        raise invalid(
            f"{tensor.name} holds {len(values)} elements in {CONTENTS[dtype]}; it must hold 1"
        )
    return np.array(list(values), np.object_ if dtype == "STRING" else DTYPES[dtype])


def _read_text(name: str, raw: bytes) -> bytes:
    if len(raw) >= LENGTH.size:
        (length,) = LENGTH.unpack_from(raw)
        if length == len(raw) - LENGTH.size:
            return raw[LENGTH.size :]
    raise invalid(
        f"{name} holds {len(raw)} bytes; one element of BYTES is its length in {LENGTH.size} bytes "
        "and the text"
    )


def _text(content: bytes | str) -> bytes:
    encoded = content.encode() if isinstance(content, str) else content
    return LENGTH.pack(len(encoded)) + encoded


def _datatype(array: NDArray[Any]) -> str:
    return next(name for name, dtype in DTYPES.items() if array.dtype == dtype)


def _check_parameters(name: str, parameters: Any) -> None:
    for parameter in parameters:
        if parameter.startswith("shared_memory"):
            raise invalid(f"{name} lies in shared memory; it must lie in the message")
        if parameter == "classification":
            raise invalid(f"{name} has classification set; it has no classes")


def _timeout_s(parameters: Any) -> float | None:
    if "timeout" not in parameters:
        return None
    value = parameters["timeout"]
    kind = value.WhichOneof("parameter_choice")
    if kind not in ("int64_param", "uint64_param") or getattr(value, kind) < 0:
        raise invalid("timeout is no whole number of microseconds, 0 or more")
    microseconds = int(getattr(value, kind))
    return microseconds / MICROSECONDS_PER_SECOND if microseconds else None


def _flag(parameters: Any, name: str) -> bool:
    if name not in parameters:
        return False
    value = parameters[name]
    if value.WhichOneof("parameter_choice") != "bool_param":
        raise invalid(f"{name} is no truth value; it must be true or false")
    return bool(value.bool_param)
