"""What a caller may send, as bytes on the wire."""

import json
import struct

import grpc
import numpy as np
import pytest
from tritonclient.grpc import service_pb2

from reelserve.server.frontend.call_errors import CallError
from reelserve.server.frontend.messages import (
    MAX_ID_CHARACTERS,
    answer,
    infer_message,
    output_arrays,
    parse,
    read_request,
    shown,
    upstream_request,
    with_seconds,
)

INVALID = grpc.StatusCode.INVALID_ARGUMENT
STAR = struct.pack("<I", 6) + b"a star"


def message(**changes):
    return service_pb2.ModelInferRequest(**{"model_name": "text_to_video", **changes})


def raw_request(*tensors, **changes):
    """From name, datatype, shape and bytes of each tensor."""
    built = message(**changes)
    for name, datatype, shape, raw in tensors:
        built.inputs.add(name=name, datatype=datatype, shape=shape)
        built.raw_input_contents.append(raw)
    return built


def typed_request(*tensors):
    """From name, datatype, shape, and field and values of its contents."""
    built = message()
    for name, datatype, shape, field, values in tensors:
        tensor = built.inputs.add(name=name, datatype=datatype, shape=shape)
        getattr(tensor.contents, field).extend(values)
    return built


def refused(built) -> CallError:
    with pytest.raises(CallError) as caught:
        read_request(parse(built.SerializeToString()))
    return caught.value


def read(built):
    return read_request(parse(built.SerializeToString()))


def int64(value):
    return struct.pack("<q", value)


def test_raw_and_typed_contents_give_the_same_request():
    raw = raw_request(
        ("PROMPT", "BYTES", [1], STAR),
        ("SEED", "INT64", [1], int64(2**40)),
        ("FPS", "INT32", [1], struct.pack("<i", -7)),
        ("GUIDANCE_SCALE", "FP32", [1], struct.pack("<f", 2.5)),
    )
    typed = typed_request(
        ("PROMPT", "BYTES", [1], "bytes_contents", [b"a star"]),
        ("SEED", "INT64", [1], "int64_contents", [2**40]),
        ("FPS", "INT32", [1], "int_contents", [-7]),
        ("GUIDANCE_SCALE", "FP32", [1], "fp32_contents", [2.5]),
    )

    for built in (raw, typed):
        tensors = read(built).tensors
        assert {name: array.item() for name, array in tensors.items()} == {
            "PROMPT": b"a star",
            "SEED": 2**40,
            "FPS": -7,
            "GUIDANCE_SCALE": 2.5,
        }
        kinds = [array.dtype for array in tensors.values()]
        assert kinds == [np.object_, np.int64, np.int32, np.float32]
        assert {array.shape for array in tensors.values()} == {(1,)}


def test_read_request_takes_what_says_nothing():
    found = read(message())

    assert (found.id, found.tensors, found.outputs) == ("", {}, ())
    assert found.timeout_s is None and not found.progress


def test_read_request_ignores_what_is_not_for_it():
    """Triton's own parameters of sequences among it; nothing of that gets there."""
    built = raw_request(("PROMPT", "BYTES", [1], STAR), id="mine", model_version="1")
    built.parameters["sequence_id"].int64_param = 7
    built.parameters["sequence_start"].bool_param = True
    built.parameters["sequence_end"].string_param = "yes"
    built.parameters["priority"].uint64_param = 3
    built.inputs[0].parameters["binary_data_size"].int64_param = 10
    found = read(built)
    sent = upstream_request(found.tensors, "0" * 32)

    assert found.id == "mine"
    assert (sent.id, sent.model_name, dict(sent.parameters)) == ("0" * 32, "text_to_video", {})
    assert [(t.name, t.datatype, t.shape, dict(t.parameters)) for t in sent.inputs] == [
        ("PROMPT", "BYTES", [1], {})
    ]
    assert list(sent.raw_input_contents) == [STAR]


@pytest.mark.parametrize("raw", [b"\xff", b"no message at all", bytes(1000)], ids=repr)
def test_parse_refuses_bytes_that_are_no_message(raw):
    with pytest.raises(CallError, match=rf"the {len(raw)} bytes of the message are no ModelInfer"):
        parse(raw)


@pytest.mark.parametrize("name", ["denoiser", "", "Text_To_Video", "text_to_video_stream"])
def test_parse_refuses_other_models(name):
    error = refused(message(model_name=name))

    assert error.code is grpc.StatusCode.PERMISSION_DENIED
    assert error.message == f"model_name is {name!r}; only text_to_video may be called"


@pytest.mark.parametrize("version", ["2", "-1", "01"])
def test_parse_refuses_other_versions(version):
    error = refused(message(model_version=version))

    assert error.code is grpc.StatusCode.NOT_FOUND
    assert error.message == f"model_version is {version!r}; text_to_video has version 1"


MALFORMED = {
    "unknown input": (("COLOUR", "INT32", [1], b"1234"), "input 'COLOUR' is not one of PROMPT, "),
    "name of a book": (
        ("x" * 10_000, "INT32", [1], b"1234"),
        f"input '{'x' * 60}…' is not one of PROMPT, ",
    ),
    "wrong datatype": (
        ("SEED", "INT32", [1], b"1234"),
        "SEED has datatype 'INT32'; it must be INT64",
    ),
    "no datatype": (("FPS", "", [1], b"1234"), "FPS has datatype ''; it must be INT32"),
    "number as a text": (
        ("PROMPT", "INT32", [1], b"1234"),
        "PROMPT has datatype 'INT32'; it must be BYTES",
    ),
    "no shape": (("FPS", "INT32", [], b"1234"), "FPS has shape []; it must be [1]"),
    "two dimensions": (("FPS", "INT32", [1, 1], b"1234"), "FPS has shape [1, 1]; it must be [1]"),
    "very many dimensions": (
        ("FPS", "INT32", [1] * 1000, b"1234"),
        f"FPS has shape {[1] * 8}; it must be [1]",
    ),
    "negative dimension": (("FPS", "INT32", [-1], b"1234"), "FPS has shape [-1]; it must be [1]"),
    "no elements": (("FPS", "INT32", [0], b""), "FPS holds 0 elements; it must hold 1"),
    "two elements": (("FPS", "INT32", [2], bytes(8)), "FPS holds 2 elements; the limit is 1"),
    "as many as can be said": (
        ("FPS", "INT32", [2**63 - 1], b""),
        f"FPS holds {2**63 - 1} elements; the limit is 1",
    ),
    "too few bytes": (
        ("SEED", "INT64", [1], b"1234"),
        "SEED holds 4 bytes; one element of INT64 has 8",
    ),
    "no bytes": (("FPS", "INT32", [1], b""), "FPS holds 0 bytes; one element of INT32 has 4"),
    "too many bytes": (
        ("GUIDANCE_SCALE", "FP32", [1], bytes(5)),
        "GUIDANCE_SCALE holds 5 bytes; one element of FP32 has 4",
    ),
    "text without its length": (
        ("PROMPT", "BYTES", [1], b"abc"),
        "PROMPT holds 3 bytes; one element of BYTES is its length in 4 bytes and the text",
    ),
    "text shorter than its length": (
        ("PROMPT", "BYTES", [1], b"\x10\0\0\0abc"),
        "PROMPT holds 7 bytes; one element of BYTES is its length",
    ),
    "text longer than its length": (
        ("PROMPT", "BYTES", [1], b"\x01\0\0\0abc"),
        "PROMPT holds 7 bytes; one element of BYTES is its length",
    ),
}


@pytest.mark.parametrize(("tensor", "words"), MALFORMED.values(), ids=MALFORMED)
def test_read_request_refuses_a_malformed_tensor(tensor, words):
    error = refused(raw_request(tensor))

    assert error.code is INVALID
    assert error.message.startswith(words)


MALFORMED_CONTENTS = {
    "no contents": (("FPS", "INT32", [1], "int_contents", []), "FPS holds 0 elements in int_conte"),
    "two elements": (
        ("FPS", "INT32", [1], "int_contents", [1, 2]),
        "FPS holds 2 elements in int_contents; it must hold 1",
    ),
    "contents of another type": (
        ("FPS", "INT32", [1], "int64_contents", [8]),
        "FPS holds 0 elements in int_contents; it must hold 1",
    ),
    "text in another field": (
        ("PROMPT", "BYTES", [1], "int_contents", [8]),
        "PROMPT holds 0 elements in bytes_contents; it must hold 1",
    ),
    "shape that does not fit": (
        ("FPS", "INT32", [2], "int_contents", [8]),
        "FPS holds 2 elements; the limit is 1",
    ),
}


@pytest.mark.parametrize(("tensor", "words"), MALFORMED_CONTENTS.values(), ids=MALFORMED_CONTENTS)
def test_read_request_refuses_malformed_contents(tensor, words):
    assert refused(typed_request(tensor)).message.startswith(words)


def test_read_request_refuses_when_a_tensor_is_there_twice():
    tensor = ("PROMPT", "BYTES", [1], STAR)
    error = refused(raw_request(tensor, tensor))
    assert error.message == "PROMPT is there twice; it must be there once"


@pytest.mark.parametrize("count", [1, 3])
def test_read_request_refuses_when_contents_are_missing_or_too_many(count):
    built = message(raw_input_contents=[STAR] * count)
    for name in ("PROMPT", "NEGATIVE_PROMPT"):
        built.inputs.add(name=name, datatype="BYTES", shape=[1])
    error = refused(built)
    assert error.message == f"raw_input_contents holds {count} tensors; the request names 2"


def test_read_request_refuses_when_a_tensor_has_contents_of_both_kinds():
    built = raw_request(("FPS", "INT32", [1], b"1234"))
    built.inputs[0].contents.int_contents.append(8)
    assert refused(built).message.startswith("FPS has contents beside raw_input_contents")


@pytest.mark.parametrize(
    "name", ["shared_memory_region", "shared_memory_offset", "shared_memory_byte_size"]
)
@pytest.mark.parametrize("where", ["inputs", "outputs"])
def test_read_request_refuses_shared_memory(name, where):
    built = raw_request(("PROMPT", "BYTES", [1], STAR))
    tensor = built.inputs[0] if where == "inputs" else built.outputs.add(name="VIDEO")
    tensor.parameters[name].int64_param = 1
    words = f"{tensor.name} lies in shared memory; it must lie in the message"
    assert refused(built).message == words


def test_read_request_refuses_classification():
    built = message()
    built.outputs.add(name="VIDEO").parameters["classification"].int64_param = 3
    assert refused(built).message == "VIDEO has classification set; it has no classes"


@pytest.mark.parametrize("name", ["EVENT", "PREVIEW", "latents", ""])
def test_read_request_refuses_unknown_outputs(name):
    built = message()
    built.outputs.add(name=name)
    assert refused(built).message == f"output {name!r} is not one of VIDEO, INFO"


def test_read_request_takes_the_outputs_that_are_wanted():
    built = message()
    for name in ("INFO", "VIDEO", "INFO"):
        built.outputs.add(name=name)
    assert read(built).outputs == ("INFO", "VIDEO", "INFO")


@pytest.mark.parametrize(
    ("kind", "value", "timeout_s"),
    [
        ("int64_param", 1_500_000, 1.5),
        ("uint64_param", 2_000_000, 2.0),
        ("int64_param", 0, None),
        ("uint64_param", 2**64 - 1, (2**64 - 1) / 1e6),
    ],
)
def test_read_request_takes_a_timeout_in_microseconds(kind, value, timeout_s):
    built = message()
    setattr(built.parameters["timeout"], kind, value)
    assert read(built).timeout_s == timeout_s


@pytest.mark.parametrize(
    ("kind", "value"),
    [
        ("int64_param", -1),
        ("string_param", "1000"),
        ("bool_param", True),
        ("double_param", 1.0),
        (None, None),
    ],
)
def test_read_request_refuses_a_timeout_that_is_none(kind, value):
    built = message()
    built.parameters["timeout"].CopyFrom(service_pb2.InferParameter())
    if kind:
        setattr(built.parameters["timeout"], kind, value)
    assert refused(built).message == "timeout is no whole number of microseconds, 0 or more"


@pytest.mark.parametrize("name", ["progress", "heartbeat"])
@pytest.mark.parametrize("value", [True, False])
def test_read_request_takes_a_flag(name, value):
    built = message()
    built.parameters[name].bool_param = value
    assert getattr(read(built), name) is value


@pytest.mark.parametrize("name", ["progress", "heartbeat"])
@pytest.mark.parametrize(("kind", "value"), [("string_param", "true"), ("int64_param", 1)])
def test_read_request_refuses_a_flag_that_is_no_truth_value(name, kind, value):
    built = message()
    setattr(built.parameters[name], kind, value)
    assert refused(built).message == f"{name} is no truth value; it must be true or false"


def test_read_request_bounds_the_id():
    assert read(message(id="é" * MAX_ID_CHARACTERS)).id == "é" * MAX_ID_CHARACTERS
    words = f"id holds {MAX_ID_CHARACTERS + 1} characters; the limit is {MAX_ID_CHARACTERS}"
    assert refused(message(id="x" * (MAX_ID_CHARACTERS + 1))).message == words


def test_infer_message_and_output_arrays_keep_dtype_and_shape():
    latents = np.arange(6, dtype=np.float32).reshape(1, 2, 3)
    built = infer_message("vae_decoder", {"LATENTS": latents}, "id")
    reply = service_pb2.ModelInferResponse()
    for tensor, datatype in zip(built.inputs, ["FP32"], strict=True):
        assert (tensor.datatype, list(tensor.shape)) == (datatype, [1, 2, 3])
        reply.outputs.add(name="SAME", datatype=datatype, shape=tensor.shape)
    reply.raw_output_contents.extend(built.raw_input_contents)
    frames = np.arange(4, dtype=np.uint8).reshape(1, 2, 2)
    reply.outputs.add(name="FRAMES", datatype="UINT8", shape=frames.shape)
    reply.raw_output_contents.append(frames.tobytes())
    found = output_arrays(reply)

    np.testing.assert_array_equal(found["SAME"], latents)
    np.testing.assert_array_equal(found["FRAMES"], frames)


@pytest.mark.parametrize(
    ("wanted", "names"),
    [((), ["VIDEO", "INFO"]), (("INFO",), ["INFO"]), (("VIDEO", "INFO"), ["VIDEO", "INFO"])],
)
def test_answer_holds_what_is_wanted_and_the_callers_id(wanted, names):
    found = answer({"VIDEO": b"mp4", "INFO": b"{}"}, "mine", wanted)

    assert [output.name for output in found.outputs] == names
    assert len(found.raw_output_contents) == len(names)
    assert (found.id, found.model_name, found.model_version) == ("mine", "text_to_video", "1")
    assert found.parameters["triton_final_response"].bool_param
    last = answer({}, "", last=False).parameters["triton_final_response"]
    assert last.WhichOneof("parameter_choice") == "bool_param" and not last.bool_param


def test_with_seconds_changes_nothing_else():
    info = with_seconds(b'{"seed": 5, "seconds": {}, "versions": {"a": "1"}}', {"total": 1.5})
    assert json.loads(info) == {"seed": 5, "seconds": {"total": 1.5}, "versions": {"a": "1"}}


def test_shown_is_short_and_quoted():
    assert shown("a\nb") == r"'a\nb'"
    assert len(shown("x" * 10**6)) == 63
