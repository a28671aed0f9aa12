"""Attacks on the public port of a real server, by raw gRPC; none leaves a trace."""

import struct
import time
from pathlib import Path

import grpc
import psutil
import pytest
from google.protobuf import message_factory
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tritonclient.grpc import InferenceServerClient, service_pb2
from tritonclient.utils import InferenceServerException

from reelserve.pipeline.contract import PUBLIC_MODEL, REQUEST_INPUTS, STAGES
from reelserve.server.launch.run_folder import SHARED_MEMORY
from reelserve.tools.faults.fuzzing import EXPECTED, REVEALING
from tests.server.grpc_requests import digest, infer_input

pytestmark = pytest.mark.server
METHODS = service_pb2.DESCRIPTOR.services_by_name["GRPCInferenceService"].methods_by_name
OFFERED = {
    *("ServerLive", "ServerReady", "ServerMetadata", "RepositoryIndex"),
    *("ModelReady", "ModelMetadata", "ModelConfig", "ModelStatistics"),
    *("ModelInfer", "ModelStreamInfer"),
}
CANARY = "zqcanaryzq"
"""A word that stands in prompts and nowhere else."""
PREFIX = "/inference.GRPCInferenceService/"
Request = service_pb2.ModelInferRequest


@pytest.fixture(scope="module", autouse=True)
def still_serves(tiny_server):
    """After all attacks the same processes draw what they drew before."""
    before, pids = digest(tiny_server, prompt="a red star", seed=1), processes(tiny_server)
    yield
    assert digest(tiny_server, prompt="a red star", seed=1) == before
    assert processes(tiny_server) == pids


@pytest.fixture(scope="module")
def channel(tiny_server):
    with grpc.insecure_channel(tiny_server.grpc_url) as channel:
        yield channel


def processes(server):
    return {child.pid for child in psutil.Process(server.pid).children(recursive=True)}


def called(channel, method, *contents):
    """Status and message that bytes get from a method."""
    many = METHODS[method].client_streaming if method in METHODS else False
    try:
        if many:
            answers = list(channel.stream_stream(PREFIX + method)(iter(contents), timeout=30))
            errors = [service_pb2.ModelStreamInferResponse.FromString(one) for one in answers]
            return "OK", "".join(one.error_message for one in errors)
        channel.unary_unary(PREFIX + method)(contents[0], timeout=30)
    except grpc.RpcError as error:
        return error.code().name, error.details()
    return "OK", ""


def clip(prompt="a red star", **fields):
    """A request for a clip that takes a moment; further fields are the message's own."""
    message = Request(model_name=PUBLIC_MODEL, **fields)
    message.inputs.add(name="PROMPT", datatype="BYTES", shape=[1])
    message.inputs.add(name="NUM_INFERENCE_STEPS", datatype="INT32", shape=[1])
    text = prompt.encode()
    message.raw_input_contents.extend([struct.pack("<I", len(text)) + text, struct.pack("<i", 1)])
    return message


def test_every_method_of_tritons_service_is_offered_on_purpose(channel):
    """A method that a new Triton brings is closed until it is named here and in `OFFERED`."""
    closed = {m for m in METHODS if called(channel, m, b"")[0] == "UNIMPLEMENTED"}
    assert closed == set(METHODS) - OFFERED
    settings = ("Memory", "ModelLoad", "ModelUnload", "TraceSetting", "LogSettings")
    assert all(any(word in method for word in settings) for method in closed)
    assert all(any(word in method for method in closed) for word in settings)
    assert called(channel, "NoSuchMethod", b"")[0] == "UNIMPLEMENTED"


@pytest.mark.parametrize("method", sorted(set(METHODS) - OFFERED))
def test_closed_methods_stay_closed_when_everything_is_filled_in(channel, method):
    message = message_factory.GetMessageClass(METHODS[method].input_type)()
    for field in METHODS[method].input_type.fields:
        if field.type == field.TYPE_STRING:
            setattr(message, field.name, "denoiser")

    status, words = called(channel, method, message.SerializeToString())

    assert status == "UNIMPLEMENTED" and method in words and not REVEALING.search(words)


@pytest.mark.parametrize("form", ["reelserve-call:{}", "{}", "../../../../../..{}", "{}\0", "{}%s"])
def test_request_ids_are_no_paths(tiny_server, channel, tmp_path, form):
    """They once were: a file came to be in any folder that the id named."""
    shared = SHARED_MEMORY / f"reelserve-{tiny_server.running.region_prefix.split('_')[1]}"
    request_id = form.format(tmp_path / "x")
    reply = Request.FromString(clip(id=request_id).SerializeToString())
    raw = channel.unary_unary(PREFIX + "ModelInfer")(reply.SerializeToString(), timeout=30)
    answer = service_pb2.ModelInferResponse.FromString(raw)

    assert answer.id == request_id and len(answer.outputs) == 2
    assert list(tmp_path.iterdir()) == []
    deadline = time.monotonic() + 30
    while left := [path for path in shared.iterdir() if not path.is_dir()]:
        # The files of the clip are removed when Triton has ended its work on it.
        assert time.monotonic() < deadline, left
        time.sleep(0.02)


def test_request_ids_that_look_like_a_clips_key_reach_no_clip(tiny_server, channel):
    """What a stage takes for a key is the front end's own; many callers may send one id."""
    shared = SHARED_MEMORY / f"reelserve-{tiny_server.running.region_prefix.split('_')[1]}"
    victim = channel.unary_unary(PREFIX + "ModelInfer").future(
        clip(id="victim").SerializeToString(), timeout=30
    )
    for log in [*shared.glob("*.log"), Path("0" * 32)]:
        assert called(channel, "ModelInfer", clip(id=log.stem).SerializeToString()) == ("OK", "")
    assert service_pb2.ModelInferResponse.FromString(victim.result()).id == "victim"


@pytest.mark.parametrize(
    "name",
    [*STAGES, "", "../text_to_video", "text_to_video/../denoiser", "text_to_video\0", "*", "%n"],
)
@pytest.mark.parametrize("method", ["ModelInfer", "ModelStreamInfer"])
def test_no_other_model_can_be_called(channel, method, name):
    """A call of `video_diffusion` once stopped the service for ten minutes."""
    message = clip()
    message.model_name = name
    message.parameters["sequence_id"].int64_param = 1
    message.parameters["sequence_start"].bool_param = True

    status, words = called(channel, method, message.SerializeToString())

    assert "PERMISSION_DENIED" in (status, words.partition(":")[0])
    assert "only text_to_video may be called" in words and not REVEALING.search(words)


@pytest.mark.parametrize("where", ["inputs", "outputs"])
@pytest.mark.parametrize("method", ["ModelInfer", "ModelStreamInfer"])
def test_shared_memory_is_refused_under_every_name(channel, method, where):
    for name in ("region", "byte_size", "offset", "handle"):
        message = clip()
        message.outputs.add(name="VIDEO")
        tensor = getattr(message, where)[0]
        tensor.parameters[f"shared_memory_{name}"].int64_param = 2**62

        status, words = called(channel, method, message.SerializeToString())

        assert "INVALID_ARGUMENT" in (status, words.partition(":")[0])
        assert "lies in shared memory; it must lie in the message" in words


def test_parameters_of_a_request_reach_no_triton(channel):
    """Sequence ids, priorities and what Triton itself understands change nothing."""
    message = clip()
    for name in ("sequence_id", "priority", "triton_x", "binary_data_output", "../x", "", "\n"):
        message.parameters[name].int64_param = 2**63 - 1
    message.parameters["sequence_start"].bool_param = True
    message.parameters["triton_enable_empty_final_response"].bool_param = True
    assert called(channel, "ModelInfer", message.SerializeToString()) == ("OK", "")


def peak_bytes(pid):
    """The most memory that a process has had."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    (line,) = (line for line in lines if line.startswith("VmHWM:"))
    return int(line.split()[1]) * 1024


def test_compressed_messages_take_no_memory(tiny_server):
    """Each unpacks to a thousand times what is sent, just less than a message may have."""
    before = peak_bytes(tiny_server.pid)
    options = {"compression": grpc.Compression.Gzip}
    with grpc.insecure_channel(tiny_server.grpc_url, **options) as channel:
        call, bomb = channel.unary_unary(PREFIX + "ModelInfer"), bytes(60 * 10**6)
        calls = [call.future(bomb, timeout=60) for _ in range(4)]
        assert {one.exception().code() for one in calls} == {grpc.StatusCode.RESOURCE_EXHAUSTED}
    assert peak_bytes(tiny_server.pid) - before < 200 * 2**20


@pytest.mark.parametrize("method", ["ModelInfer", "ModelStreamInfer"])
def test_a_prompt_that_is_far_too_long_takes_no_memory(tiny_server, channel, method):
    """It is refused by its length, before it has come."""
    before = peak_bytes(tiny_server.pid)
    message = clip("x" * (128 * 10**6)).SerializeToString()
    assert called(channel, method, message)[0] == "RESOURCE_EXHAUSTED"
    assert peak_bytes(tiny_server.pid) - before < 50 * 2**20


def test_prompts_are_in_no_log(tiny_server, channel):
    prompt = f"a red {CANARY}"
    working = Path(psutil.Process(tiny_server.triton_pid).cwd())
    outcomes = [
        called(channel, "ModelInfer", clip(prompt).SerializeToString())[0],
        called(channel, "ModelInfer", clip(prompt * 40).SerializeToString())[0],
        called(channel, "ModelInfer", clip(prompt, id=prompt).SerializeToString()[:-2])[0],
        called(channel, "ModelInfer", clip(f"{prompt} \0\ud7ff").SerializeToString())[0],
        called(channel, "ModelStreamInfer", clip(prompt).SerializeToString())[0],
        called(channel, "ModelMetadata", clip(prompt).SerializeToString())[0],
    ]
    with InferenceServerClient(tiny_server.grpc_url) as client:
        inputs = [infer_input("PROMPT", prompt), infer_input("NUM_INFERENCE_STEPS", 1000)]
        with pytest.raises(InferenceServerException, match=r"[Dd]eadline"):
            client.infer(PUBLIC_MODEL, inputs, client_timeout=0.5)

    assert outcomes[0] == outcomes[4] == "OK" and outcomes[1] == "INVALID_ARGUMENT"
    assert CANARY not in tiny_server.messages()
    assert CANARY not in (working / "triton.log").read_text(errors="replace")


WORDS = st.text(max_size=40) | st.sampled_from([CANARY, "\0", "%s%n", "../../x", "a" * 2000])
PARAMETERS = st.dictionaries(
    WORDS | st.sampled_from(["timeout", "progress", "sequence_id", "shared_memory_region"]),
    st.integers(-(2**63), 2**63 - 1) | st.booleans() | WORDS,
    max_size=3,
)
KINDS = {bool: "bool_param", int: "int64_param", str: "string_param"}
DATATYPES = st.sampled_from(["BYTES", "INT32", "INT64", "FP32", "UINT8", "FP16", ""]) | WORDS


@st.composite
def hostile(draw):
    """A request that a careless or a hostile caller could send; nearly all are refused."""
    message = Request(id=draw(WORDS), model_version=draw(st.just("") | WORDS))
    message.model_name = draw(st.just(PUBLIC_MODEL) | WORDS)
    names = st.sampled_from([spec.name for spec in REQUEST_INPUTS]) | WORDS
    for _ in range(draw(st.integers(0, 4))):
        shape = draw(st.lists(st.integers(-(2**63), 2**63 - 1) | st.just(1), max_size=3))
        message.inputs.add(name=draw(names), datatype=draw(DATATYPES), shape=shape)
    for _ in range(draw(st.integers(0, 2))):
        message.outputs.add(name=draw(st.sampled_from(["VIDEO", "INFO"]) | WORDS))
    message.raw_input_contents.extend(draw(st.lists(st.binary(max_size=64), max_size=5)))
    holders = [message, *message.inputs, *message.outputs]
    for name, value in draw(PARAMETERS).items():
        parameter = draw(st.sampled_from(holders)).parameters[name]
        setattr(parameter, KINDS[type(value)], value)
    return message.SerializeToString()


@settings(
    max_examples=300,
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(
    method=st.just("ModelInfer") | st.sampled_from(sorted(METHODS)),
    content=hostile() | st.binary(max_size=200),
)
def test_no_error_shows_a_stack_trace_or_a_path(channel, method, content):
    status, words = called(channel, method, content)

    assert status in EXPECTED and (words or status == "OK")
    assert not REVEALING.search(words)
