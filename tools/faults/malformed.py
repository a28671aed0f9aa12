"""Malformed gRPC calls, drawn by a seeded generator: the same number gives the same call."""

from __future__ import annotations

import random
import struct
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from tritonclient.grpc import service_pb2

from reelserve.pipeline.checkpoint import CheckpointSpec
from reelserve.pipeline.contract import PROGRESS, STAGES
from reelserve.tools.faults.well_formed import set_raw, well_formed

Request = Any
"""A `ModelInferRequest`; the generated code has no types."""
Mutation = Callable[[Request, random.Random], None]

UNARY, STREAM = "ModelInfer", "ModelStreamInfer"
STREAM_SHARE, PROGRESS_SHARE, STAGE_SHARE, BYTES_SHARE, OTHER_SHARE = 0.4, 0.5, 0.1, 0.15, 0.03
"""Shares of the calls: by the streaming method, with progress, to a stage, broken as bytes, to
other methods."""
MAX_MUTATIONS = 3
MAX_CONTENT_BYTES = 2**21
"""Longest content that is sent; what a message claims to hold may be far longer."""
DTYPES = (
    *("BOOL", "UINT8", "UINT16", "UINT32", "UINT64", "INT8", "INT16", "INT32", "INT64"),
    *("FP16", "FP32", "FP64", "BF16", "BYTES", "", "FP128", "int32", "STRING", "TYPE_INT32"),
)
SHAPES: tuple[tuple[int, ...], ...] = (
    *((), (0,), (2,), (1, 1), (-1,), (0, 0), (1, 0, 1), (1,) * 40),
    *((2**31,), (2**63 - 1,), (-(2**63),), (2**32, 2**32), (2**62, 4), (3, 2**61), (1, -1, -1)),
)
INTEGERS = (0, -1, 1, 2**31 - 1, -(2**31), 51, 241, 17, 10**9, 255)
REALS = tuple(map(float, ("nan", "inf", "-inf", "-1", "0", "1e38", "1e-45", "20.0001", "0.99")))
TEXTS = (
    *(b"", b" \n\t", b"\x00\x01\x02", b"red\xff", b"\xc3(", b"\xed\xa0\x80", b"\xf8\x88\x80\x80"),
    *(b"x" * 501, b"red " * 200, "⭐".encode() * 501, "\u202e\u0301".encode() * 300),
)
NAMES = ("", "text", "denoiser2", "TEXT_TO_VIDEO", "..", "%s%n", "ü" * 70, "n" * 5000, "a\x00b")


@dataclass(frozen=True)
class MalformedCall:
    """A call that something is wrong with.

    Args:
        fault: What is wrong.
        method: Method of Triton's gRPC service.
        messages: What is sent; one for every method but the streaming one.
    """

    fault: str
    method: str
    messages: tuple[bytes, ...]


def malformed_call(seed: int, number: int, spec: CheckpointSpec) -> MalformedCall:
    """Draws a call.

    Args:
        seed: Seed of the whole run.
        number: Number of the call.
        spec: The served checkpoint.
    """
    rng = random.Random(f"{seed}/{number}")
    if rng.random() < OTHER_SHARE:
        return _other_method(rng)
    method = STREAM if rng.random() < STREAM_SHARE else UNARY
    request = well_formed(spec, rng)
    if rng.random() < PROGRESS_SHARE:
        request.parameters[PROGRESS].bool_param = True
    if rng.random() < STAGE_SHARE:
        request.model_name = rng.choice(tuple(STAGES))
    if rng.random() < BYTES_SHARE:
        # Out of range to begin with: otherwise half of the flipped bits would cost a clip.
        _value(request, rng)
        fault = rng.choice(tuple(BYTE_FAULTS))
        content = BYTE_FAULTS[fault](request.SerializeToString(), rng)
        return MalformedCall(fault, method, (content,))
    faults = rng.sample(tuple(MUTATIONS), rng.randint(1, MAX_MUTATIONS))
    for fault in faults:
        MUTATIONS[fault](request, rng)
    content = request.SerializeToString()
    count = rng.choice((0, 1, 1, 1, 2)) if method == STREAM else 1
    return MalformedCall(faults[0], method, (content,) * count)


def _other_method(rng: random.Random) -> MalformedCall:
    """A call that asks for something else than a clip, of something that is not there."""
    name = rng.choice(NAMES)
    method, message = rng.choice(
        (
            ("ModelReady", service_pb2.ModelReadyRequest(name=name, version="-1")),
            ("ModelMetadata", service_pb2.ModelMetadataRequest(name=name, version="x" * 99)),
            ("ModelConfig", service_pb2.ModelConfigRequest(name=name)),
            ("ModelStatistics", service_pb2.ModelStatisticsRequest(name=name, version="1e9")),
            ("RepositoryModelLoad", service_pb2.RepositoryModelLoadRequest(model_name=name)),
            ("RepositoryModelUnload", service_pb2.RepositoryModelUnloadRequest(model_name=name)),
            (
                "SystemSharedMemoryRegister",
                service_pb2.SystemSharedMemoryRegisterRequest(
                    name="region", key="no_such_region", offset=2**60, byte_size=2**63
                ),
            ),
            ("RepositoryIndex", service_pb2.RepositoryIndexRequest(repository_name=name)),
            ("TraceSetting", service_pb2.TraceSettingRequest(model_name="no_such_model")),
            ("NoSuchMethod", service_pb2.ServerLiveRequest()),
        )
    )
    return MalformedCall("other method", method, (message.SerializeToString(),))


def _any_input(request: Request, rng: random.Random) -> int:
    if not request.inputs:
        request.inputs.add(name="PROMPT", datatype="BYTES", shape=[1])
    if len(request.raw_input_contents) < len(request.inputs):
        missing = len(request.inputs) - len(request.raw_input_contents)
        request.raw_input_contents.extend([b""] * missing)
    return rng.randrange(len(request.inputs))


def _missing(request: Request, rng: random.Random) -> None:
    index = _any_input(request, rng)
    # Without it nothing else has to be right, and the other fields alone make no request.
    names = [tensor.name for tensor in request.inputs]
    index = names.index("PROMPT") if "PROMPT" in names else index
    del request.inputs[index], request.raw_input_contents[index]


def _nothing(request: Request, rng: random.Random) -> None:
    del request.inputs[:], request.raw_input_contents[:]


def _doubled(request: Request, rng: random.Random) -> None:
    index = _any_input(request, rng)
    request.inputs.add().CopyFrom(request.inputs[index])
    request.raw_input_contents.append(request.raw_input_contents[index])


def _unknown(request: Request, rng: random.Random) -> None:
    request.inputs.add(name=rng.choice(("COLOUR", *NAMES)), datatype="INT32", shape=[1])
    request.raw_input_contents.append(b"\1\0\0\0")


def _renamed(request: Request, rng: random.Random) -> None:
    request.inputs[_any_input(request, rng)].name = rng.choice(NAMES)


def _dtype(request: Request, rng: random.Random) -> None:
    tensor = request.inputs[_any_input(request, rng)]
    tensor.datatype = rng.choice([dtype for dtype in DTYPES if dtype != tensor.datatype])


def _shape(request: Request, rng: random.Random) -> None:
    tensor = request.inputs[_any_input(request, rng)]
    shape = rng.choice([shape for shape in SHAPES if list(shape) != list(tensor.shape)])
    del tensor.shape[:]
    tensor.shape.extend(shape)


def _one_dimension(request: Request, rng: random.Random) -> None:
    """A dimension that others depend on, with contents that fit it."""
    index = _any_input(request, rng)
    tensor = request.inputs[index]
    if not tensor.shape or min(tensor.shape) < 1:
        return
    size = len(request.raw_input_contents[index])
    axis = rng.randrange(len(tensor.shape))
    width = rng.choice((0, 1, 2, 3, 5, 7, 65))
    content = request.raw_input_contents[index] * (width if width else 1)
    wanted = size // tensor.shape[axis] * width
    if len(content) <= MAX_CONTENT_BYTES:
        tensor.shape[axis] = width
        request.raw_input_contents[index] = content[:wanted]


def _raw_length(request: Request, rng: random.Random) -> None:
    index = _any_input(request, rng)
    raw = request.raw_input_contents[index]
    request.raw_input_contents[index] = rng.choice(
        (b"", raw[:-1], raw + b"\0", raw[: len(raw) // 2], raw * 3, rng.randbytes(3))
    )


def _huge(request: Request, rng: random.Random) -> None:
    index = _any_input(request, rng)
    request.raw_input_contents[index] = bytes(rng.choice((2**16, 2**19, MAX_CONTENT_BYTES)))


def _raw_count(request: Request, rng: random.Random) -> None:
    _any_input(request, rng)
    if rng.random() < 0.5:
        request.raw_input_contents.append(rng.randbytes(8))
    else:
        del request.raw_input_contents[-1]


def _typed(request: Request, rng: random.Random) -> None:
    """Contents in the message's own fields: beside the raw ones, or too many, or of no type."""
    tensor = request.inputs[_any_input(request, rng)]
    if rng.random() < 0.7:
        del request.raw_input_contents[:]
    field = rng.choice(("int_contents", "fp32_contents", "bytes_contents", "bool_contents"))
    value = b"a" if field == "bytes_contents" else 1
    getattr(tensor.contents, field).extend([value] * rng.choice((0, 2, 1000)))


def _value(request: Request, rng: random.Random) -> None:
    index = _any_input(request, rng)
    tensor = request.inputs[index]
    if tensor.datatype == "BYTES":
        set_raw(request, index, rng.choice(TEXTS))
        return
    count = len(request.raw_input_contents[index])
    integers = {"INT32": "i", "INT64": "q", "UINT8": "B"}
    value: float
    if tensor.datatype in integers:
        code = integers[tensor.datatype]
        low, high = (0, 255) if code == "B" else (-(2**31), 2**31 - 1)
        value = max(low, min(high, rng.choice(INTEGERS)))
    else:
        code, value = "f", rng.choice(REALS)
    one = struct.pack(f"<{code}", value)
    request.raw_input_contents[index] = one * (count // len(one))


def _text(request: Request, rng: random.Random) -> None:
    texts = [i for i, tensor in enumerate(request.inputs) if tensor.datatype == "BYTES"]
    if texts and len(request.raw_input_contents) == len(request.inputs):
        set_raw(request, rng.choice(texts), rng.choice(TEXTS))
    else:
        _value(request, rng)


def _long_text(request: Request, rng: random.Random) -> None:
    index = _any_input(request, rng)
    set_raw(request, index, rng.choice((b"red ", b"\xff", b"\0")) * rng.choice((10**3, 10**5)))


def _text_prefix(request: Request, rng: random.Random) -> None:
    """The length before a text is not its own."""
    index = _any_input(request, rng)
    length = rng.choice((0, 5, 2**31, 2**32 - 1))
    request.raw_input_contents[index] = struct.pack("<I", length) + b"a red star"


def _request_id(request: Request, rng: random.Random) -> None:
    request.id = rng.choice(("\n", "i" * 10**5, "\x00", "reelserve-call:", "reelserve-call:../x"))
    _value(request, rng)


def _model(request: Request, rng: random.Random) -> None:
    if rng.random() < 0.5:
        request.model_name = rng.choice(NAMES)
    else:
        request.model_version = rng.choice(("2", "-1", "0", "x", "1" * 50, "9" * 19))


def _parameter(request: Request, rng: random.Random) -> None:
    name = rng.choice((PROGRESS, "timeout", "priority", "binary_data_output", "triton_x", ""))
    field = rng.choice(("int64_param", "string_param", "bool_param", "double_param"))
    value = {"string_param": "soon", "bool_param": True, "double_param": -0.5}.get(field, -1)
    setattr(request.parameters[name], field, value)
    _value(request, rng)


def _sequence(request: Request, rng: random.Random) -> None:
    parameters = request.parameters
    if rng.random() < 0.5:
        parameters["sequence_id"].int64_param = rng.choice((-1, 1, 7, 2**62))
    else:
        parameters["sequence_id"].string_param = rng.choice(("seven", "s" * 500, ""))
    for flag in ("sequence_start", "sequence_end"):
        if rng.random() < 0.5:
            parameters[flag].bool_param = True


def _tensor_parameter(request: Request, rng: random.Random) -> None:
    tensor = request.inputs[_any_input(request, rng)]
    tensor.parameters["shared_memory_region"].string_param = rng.choice(("no_region", ""))
    tensor.parameters["shared_memory_byte_size"].int64_param = rng.choice((-1, 0, 8, 2**62))
    if rng.random() < 0.5:
        del request.raw_input_contents[:]


def _output(request: Request, rng: random.Random) -> None:
    output = request.outputs.add(name=rng.choice(("VIDEO", "VIDEO", "COLOUR", "")))
    output.parameters["binary_data"].int64_param = -1
    if rng.random() < 0.5:
        request.outputs.add().CopyFrom(output)
    _value(request, rng)


MUTATIONS: dict[str, Mutation] = {
    "input missing": _missing,
    "no input": _nothing,
    "input doubled": _doubled,
    "input unknown": _unknown,
    "input renamed": _renamed,
    "wrong dtype": _dtype,
    "wrong shape": _shape,
    "wrong dimension": _one_dimension,
    "wrong content length": _raw_length,
    "huge content": _huge,
    "wrong number of contents": _raw_count,
    "typed contents": _typed,
    "value out of range": _value,
    "bad text": _text,
    "long text": _long_text,
    "wrong text length": _text_prefix,
    "bad request id": _request_id,
    "unknown model": _model,
    "bad parameter": _parameter,
    "part of a sequence": _sequence,
    "no such shared memory": _tensor_parameter,
    "bad output": _output,
}


def _truncated(content: bytes, rng: random.Random) -> bytes:
    return content[: rng.randrange(len(content))]


def _flipped(content: bytes, rng: random.Random) -> bytes:
    flipped = bytearray(content)
    # In what describes the tensors, at the front, more often than in their contents.
    for _ in range(rng.randint(1, 8)):
        flipped[rng.randrange(min(len(flipped), 400))] ^= 1 << rng.randrange(8)
    return bytes(flipped)


def _noise(content: bytes, rng: random.Random) -> bytes:
    return rng.randbytes(rng.choice((1, 10, 100, 10_000)))


def _bad_string(content: bytes, rng: random.Random) -> bytes:
    # Field 3, the request's id, is a string, which must be UTF-8.
    return content + b"\x1a\x04\xff\xfe\xc3\x28"


def _endless(content: bytes, rng: random.Random) -> bytes:
    # Field 5, an input, that claims to be longer than the message.
    return content + b"\x2a\xff\xff\xff\xff\x07" + rng.randbytes(20)


BYTE_FAULTS: dict[str, Callable[[bytes, random.Random], bytes]] = {
    "message truncated": _truncated,
    "bits flipped": _flipped,
    "random bytes": _noise,
    "string not UTF-8": _bad_string,
    "field longer than message": _endless,
}
