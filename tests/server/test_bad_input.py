"""Requests that must be refused, through real gRPC, before the denoiser sees them."""

import pytest
from tritonclient.grpc import InferenceServerClient, InferRequestedOutput
from tritonclient.utils import InferenceServerException

from tests.server.grpc_requests import executions, generate, infer_input
from tests.server.tiny_repository import SPEC

pytestmark = pytest.mark.server

GOOD = {"prompt": "a red star"}
BAD_VALUES = {
    "empty prompt": ({"prompt": ""}, "PROMPT is ''; it must hold at least 1 visible character"),
    "blank prompt": ({"prompt": " \n\t"}, r"PROMPT is ' \n\t'; it must hold at least 1"),
    "prompt of control characters": ({"prompt": "\x00\x01"}, r"PROMPT is '\x00\x01'; it must"),
    "prompt of too many characters": (
        {"prompt": "x" * 101},
        "PROMPT holds 101 characters; the limit is 100",
    ),
    "prompt of too many tokens": (
        {"prompt": "red " * 15},
        "PROMPT holds 17 tokens; the limit is 16",
    ),
    "prompt that is not UTF-8": (
        {"prompt": b"red\xff"},
        "PROMPT holds the byte 0xff at position 3; it must be UTF-8",
    ),
    "two prompts": ({"prompt": ["a", "b"]}, "PROMPT holds 2 elements; the limit is 1"),
    "no prompt in the tensor": ({"prompt": []}, "PROMPT holds 0 elements; it must hold 1"),
    "negative prompt too long": (
        {**GOOD, "negative_prompt": "x" * 101},
        "NEGATIVE_PROMPT holds 101 characters; the limit is 100",
    ),
    "negative prompt of too many tokens": (
        {**GOOD, "negative_prompt": "red " * 15},
        "NEGATIVE_PROMPT holds 17 tokens; the limit is 16",
    ),
    "negative prompt that is not UTF-8": (
        {**GOOD, "negative_prompt": b"\xc3("},
        "NEGATIVE_PROMPT holds the byte 0xc3 at position 0; it must be UTF-8",
    ),
    "negative seed": ({**GOOD, "seed": -1}, f"SEED is -1; the limits are 0 to {2**63 - 1}"),
    "two seeds": ({**GOOD, "seed": [1, 2]}, "SEED holds 2 elements; the limit is 1"),
    "NaN guidance": (
        {**GOOD, "guidance_scale": float("nan")},
        "GUIDANCE_SCALE is nan; the limits are 1 to 20",
    ),
    "infinite guidance": (
        {**GOOD, "guidance_scale": float("inf")},
        "GUIDANCE_SCALE is inf; the limits are 1 to 20",
    ),
    "negative guidance": (
        {**GOOD, "guidance_scale": -2.0},
        "GUIDANCE_SCALE is -2; the limits are 1 to 20",
    ),
    "guidance above the limit": (
        {**GOOD, "guidance_scale": 20.5},
        "GUIDANCE_SCALE is 20.5; the limits are 1 to 20",
    ),
    "no steps": (
        {**GOOD, "num_inference_steps": 0},
        "NUM_INFERENCE_STEPS is 0; the limits are 1 to 1000",
    ),
    "too many steps": (
        {**GOOD, "num_inference_steps": 1001},
        "NUM_INFERENCE_STEPS is 1001; the limits are 1 to 1000",
    ),
    "frames not divisible": (
        {**GOOD, "num_frames": 18},
        "NUM_FRAMES is 18; it must be a multiple of 4 from 16 to 64",
    ),
    "too few frames": ({**GOOD, "num_frames": 0}, "NUM_FRAMES is 0; the limits are 16 to 64"),
    "too many frames": ({**GOOD, "num_frames": 68}, "NUM_FRAMES is 68; the limits are 16 to 64"),
    "no frames a second": ({**GOOD, "fps": 0}, "FPS is 0; the limits are 1 to 60"),
    "too many frames a second": ({**GOOD, "fps": 61}, "FPS is 61; the limits are 1 to 60"),
    "height too small": ({**GOOD, "height": 32}, "HEIGHT is 32; the limits are 64 to 128"),
    "height not divisible": (
        {**GOOD, "height": 80},
        "HEIGHT is 80; it must be a multiple of 32 from 64 to 128",
    ),
    "width too large": (
        {**GOOD, "width": 2**31 - 1},
        "WIDTH is 2147483647; the limits are 64 to 128",
    ),
    "no prompt": ({"seed": 1}, "PROMPT is missing; it must hold 1 element"),
    "nothing at all": ({}, "PROMPT is missing; it must hold 1 element"),
}


def refusal(server, inputs, **options) -> InferenceServerException:
    """The error that a request gets; asserts that no engine stage has run for it."""
    stages = ("text_encoder", "video_diffusion", "denoiser")
    before = [executions(server, stage) for stage in stages]
    with (
        InferenceServerClient(server.grpc_url) as client,
        pytest.raises(InferenceServerException) as caught,
    ):
        client.infer("text_to_video", inputs, client_timeout=10, **options)
    assert [executions(server, stage) for stage in stages] == before
    return caught.value


@pytest.mark.parametrize(("fields", "message"), BAD_VALUES.values(), ids=BAD_VALUES)
def test_text_to_video_refuses_when_a_value_is_out_of_range(tiny_server, fields, message):
    inputs = [infer_input(name.upper(), value) for name, value in fields.items()]

    error = refusal(tiny_server, inputs)

    assert error.status() == "StatusCode.INVALID_ARGUMENT"
    assert message in error.message()
    assert "Traceback" not in error.message() and ".py" not in error.message()


@pytest.mark.parametrize(
    ("name", "value", "dtype", "message"),
    [
        ("SEED", 1, "INT32", "SEED has datatype 'INT32'; it must be INT64"),
        ("GUIDANCE_SCALE", 2, "INT64", "GUIDANCE_SCALE has datatype 'INT64'; it must be FP32"),
        ("NUM_FRAMES", 16.0, "FP32", "NUM_FRAMES has datatype 'FP32'; it must be INT32"),
        ("PROMPT", 3, "INT32", "PROMPT has datatype 'INT32'; it must be BYTES"),
        ("FPS", [[8]], "INT32", "FPS has shape [1, 1]; it must be [1]"),
        ("COLOUR", 1, "INT32", "input 'COLOUR' is not one of PROMPT, NEGATIVE_PROMPT, SEED, "),
    ],
    ids=["int32 seed", "integer guidance", "real frames", "number", "two dimensions", "unknown"],
)
def test_text_to_video_refuses_when_a_tensor_has_the_wrong_type_or_rank(
    tiny_server, name, value, dtype, message
):
    good = [] if name == "PROMPT" else [infer_input("PROMPT", "a red star")]

    error = refusal(tiny_server, [*good, infer_input(name, value, dtype)])

    assert error.status() == "StatusCode.INVALID_ARGUMENT"
    assert error.message().startswith(message)


@pytest.mark.parametrize("where", ["input", "output"])
def test_text_to_video_refuses_shared_memory(tiny_server, where):
    """Anybody's region could be named."""
    prompt, video = infer_input("PROMPT", "a red star"), InferRequestedOutput("VIDEO")
    tensor = prompt if where == "input" else video
    tensor.set_shared_memory("somebodys", 100)

    error = refusal(tiny_server, [prompt], outputs=[video])

    assert error.status() == "StatusCode.INVALID_ARGUMENT"
    name = "PROMPT" if where == "input" else "VIDEO"
    assert error.message() == f"{name} lies in shared memory; it must lie in the message"


def test_message_is_refused_when_it_is_too_large(tiny_server):
    error = refusal(tiny_server, [infer_input("PROMPT", "x" * 2**20)])

    assert error.status() == "StatusCode.RESOURCE_EXHAUSTED"


@pytest.mark.parametrize(
    "prompt", ["красная звезда", "赤い星", "نجمة حمراء", "⭐ 🔴", "a" * 100], ids=repr
)
def test_text_to_video_draws_when_the_prompt_is_in_another_script(tiny_server, prompt):
    video, info = generate(tiny_server, prompt=prompt, seed=1)

    assert video[4:8] == b"ftyp"
    assert info["num_frames"] == SPEC.limits.num_frames.default
