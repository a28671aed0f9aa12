"""The service as clients that we did not write see it: Triton's own, gRPC health, reflection."""

import asyncio
import json
import queue
import urllib.error
import urllib.request

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc
from tritonclient.grpc import InferenceServerClient, InferRequestedOutput, aio
from tritonclient.utils import InferenceServerException

from reelserve.pipeline.contract import ENSEMBLE_STAGES, PUBLIC_MODEL, STAGES
from tests.server.grpc_requests import DEADLINE_S, generate, infer_input

pytestmark = pytest.mark.server
FIELDS = {"PROMPT": "a red star", "SEED": 3, "NUM_INFERENCE_STEPS": 2}


def inputs(**changes):
    return [infer_input(name, value) for name, value in {**FIELDS, **changes}.items()]


@pytest.fixture
def client(tiny_server):
    with InferenceServerClient(tiny_server.grpc_url) as client:
        yield client


@pytest.fixture(scope="module")
def expected(tiny_server):
    """The clip of `FIELDS`."""
    return generate(tiny_server, **{name.lower(): value for name, value in FIELDS.items()})[0]


class Streaming:
    """A stream of Triton's client, and what came."""

    def __init__(self, client, **options):
        self.client, self._came = client, queue.Queue()
        client.start_stream(lambda result, error: self._came.put((result, error)), **options)

    def send(self, request_id, *, outputs=None, progress=None, **changes):
        parameters = None if progress is None else {"progress": progress}
        self.client.async_stream_infer(
            PUBLIC_MODEL,
            inputs(**changes),
            request_id=request_id,
            outputs=outputs,
            parameters=parameters,
        )

    def next(self):
        return self._came.get(timeout=DEADLINE_S)

    @property
    def silent(self):
        return self._came.empty()

    def end(self):
        self.client.stop_stream()
        return self.silent


def test_unary_call_gives_the_callers_id_and_outputs(client, expected):
    result = client.infer(
        PUBLIC_MODEL, inputs(), request_id="mine", outputs=[InferRequestedOutput("VIDEO")]
    )
    response = result.get_response()

    assert (response.id, response.model_name, response.model_version) == ("mine", PUBLIC_MODEL, "1")
    assert result.as_numpy("VIDEO")[0] == expected
    assert result.as_numpy("INFO") is None


@pytest.mark.parametrize(
    "options",
    [
        {"sequence_id": 7},
        {"sequence_id": 7, "sequence_start": True, "sequence_end": True},
        {"sequence_id": "seven", "sequence_end": True},
        {"priority": 3, "model_version": "1"},
    ],
    ids=str,
)
def test_ids_and_flags_of_sequences_change_nothing(client, expected, options):
    assert client.infer(PUBLIC_MODEL, inputs(), **options).as_numpy("VIDEO")[0] == expected


def test_asynchronous_calls_are_answered(client, expected):
    came = queue.Queue()
    for number in range(3):
        client.async_infer(
            PUBLIC_MODEL,
            inputs(),
            callback=lambda result, error: came.put((result, error)),
            request_id=str(number),
        )
    answers = [came.get(timeout=DEADLINE_S) for _ in range(3)]

    assert [error for _, error in answers] == [None] * 3
    assert {result.get_response().id for result, _ in answers} == {"0", "1", "2"}
    assert {result.as_numpy("VIDEO")[0] for result, _ in answers} == {expected}


def test_plain_stream_gives_one_response_a_request_in_order(client, expected):
    stream = Streaming(client)
    # The first one takes longest.
    for number, steps in enumerate((40, 2, 10)):
        stream.send(str(number), NUM_INFERENCE_STEPS=steps)
    answers = [stream.next() for _ in range(3)]

    assert stream.end(), "one response each"
    assert [error for _, error in answers] == [None] * 3
    assert [result.get_response().id for result, _ in answers] == ["0", "1", "2"]
    assert answers[1][0].as_numpy("VIDEO")[0] == expected
    for result, _ in answers:
        assert result.get_response().parameters["triton_final_response"].bool_param
        assert result.as_numpy("EVENT") is None


def test_stream_with_progress_tells_events(client, expected):
    stream = Streaming(client)
    stream.send("mine", progress=True, outputs=[InferRequestedOutput("VIDEO")])
    results, final = [], False
    while not final:
        result, error = stream.next()
        assert error is None and result.get_response().id == "mine"
        final = result.get_response().parameters["triton_final_response"].bool_param
        results.append(result)
    assert stream.end()
    events = [json.loads(result.as_numpy("EVENT")[0]) for result in results]

    stages = [event["stage"] for event in events if event["kind"] == "stage"]
    assert stages == list(ENSEMBLE_STAGES[: len(stages)]) and len(stages) >= 6
    assert events[-1]["kind"] == "clip" and [e["kind"] for e in events].count("clip") == 1
    assert results[-1].as_numpy("VIDEO")[0] == expected
    assert results[-1].as_numpy("INFO") is None
    assert all(result.as_numpy("VIDEO") is None for result in results[:-1])


def test_stream_tells_errors_one_by_one(client):
    stream = Streaming(client)
    stream.send("bad", FPS=0)
    _, error = stream.next()
    stream.send("good")
    result, none = stream.next()

    assert str(error) == "INVALID_ARGUMENT: FPS is 0; the limits are 1 to 60"
    assert none is None and result.get_response().id == "good"
    assert stream.end()


def test_stream_ends_with_a_status_when_asked_to(client):
    stream = Streaming(client, headers={"triton_grpc_error": "true"})
    stream.send("bad", FPS=0)
    _, error = stream.next()

    assert error.status() == "StatusCode.INVALID_ARGUMENT"
    assert error.message() == "FPS is 0; the limits are 1 to 60"
    client.stop_stream()


def test_asyncio_client_is_answered(tiny_server, expected):
    async def draw():
        async with aio.InferenceServerClient(tiny_server.grpc_url) as client:
            assert await client.is_server_ready() and await client.is_model_ready(PUBLIC_MODEL)
            one = await client.infer(PUBLIC_MODEL, inputs(), request_id="mine")

            async def requests():
                yield {"model_name": PUBLIC_MODEL, "inputs": inputs(), "request_id": "streamed"}

            streamed = [pair async for pair in client.stream_infer(requests())]
            return one, streamed

    one, streamed = asyncio.run(draw())
    ((result, error),) = streamed
    assert (one.get_response().id, result.get_response().id) == ("mine", "streamed")
    assert error is None
    assert one.as_numpy("VIDEO")[0] == result.as_numpy("VIDEO")[0] == expected


@pytest.mark.parametrize("stage", [*STAGES, "no_such_model"])
def test_stages_may_not_be_called(client, stage):
    with pytest.raises(InferenceServerException) as caught:
        client.infer(stage, [])
    assert caught.value.status() == "StatusCode.PERMISSION_DENIED"
    words = f"model_name is {stage!r}; only text_to_video may be called"
    assert caught.value.message() == words


@pytest.mark.parametrize(
    "call",
    [
        lambda client: client.load_model("denoiser"),
        lambda client: client.unload_model("denoiser"),
        lambda client: client.register_system_shared_memory("r", "/k", 100),
        lambda client: client.unregister_system_shared_memory(),
        lambda client: client.get_system_shared_memory_status(),
        lambda client: client.register_cuda_shared_memory("r", b"", 0, 100),
        lambda client: client.unregister_cuda_shared_memory(),
        lambda client: client.update_log_settings({"log_verbose_level": 9}),
        lambda client: client.get_log_settings(),
        lambda client: client.update_trace_settings(settings={"trace_level": ["TENSORS"]}),
        lambda client: client.get_trace_settings(),
    ],
)
def test_what_changes_the_server_is_not_offered(client, call):
    with pytest.raises(InferenceServerException) as caught:
        call(client)
    assert caught.value.status() == "StatusCode.UNIMPLEMENTED"
    assert "is not offered: text_to_video may be called" in caught.value.message()
    assert client.is_model_ready("denoiser")


def test_what_only_reads_is_told(client):
    assert client.is_server_live() and client.is_server_ready()
    assert all(client.is_model_ready(model) for model in (*STAGES, PUBLIC_MODEL))
    assert client.get_server_metadata().name == "triton"
    metadata = client.get_model_metadata(PUBLIC_MODEL)
    assert metadata.platform == "ensemble"
    assert [tensor.name for tensor in metadata.outputs] == ["VIDEO", "INFO"]
    steps = client.get_model_config(PUBLIC_MODEL).config.ensemble_scheduling.step
    assert tuple(step.model_name for step in steps) == ENSEMBLE_STAGES
    index = client.get_model_repository_index().models
    assert {model.name for model in index if model.state == "READY"} == {*STAGES, PUBLIC_MODEL}
    statistics = client.get_inference_statistics().model_stats
    assert {model.name for model in statistics} == {*STAGES, PUBLIC_MODEL}


def test_unknown_models_are_not_found(client):
    assert not client.is_model_ready("no_such_model")
    with pytest.raises(InferenceServerException) as caught:
        client.get_model_metadata("no_such_model")
    assert "no_such_model" in caught.value.message()
    with pytest.raises(InferenceServerException) as caught:
        client.infer(PUBLIC_MODEL, inputs(), model_version="2")
    assert caught.value.status() == "StatusCode.NOT_FOUND"


def test_health_checking_protocol_is_spoken(tiny_server):
    """What `grpc_health_probe` and Kubernetes ask."""
    with grpc.insecure_channel(tiny_server.grpc_url) as channel:
        stub = health_pb2_grpc.HealthStub(channel)
        for service in ("", "inference.GRPCInferenceService"):
            request = health_pb2.HealthCheckRequest(service=service)
            assert stub.Check(request, timeout=10).status == health_pb2.HealthCheckResponse.SERVING
            watch = stub.Watch(request, timeout=10)
            assert next(watch).status == health_pb2.HealthCheckResponse.SERVING
            watch.cancel()


def test_reflection_lists_the_services(tiny_server):
    with grpc.insecure_channel(tiny_server.grpc_url) as channel:
        stub = reflection_pb2_grpc.ServerReflectionStub(channel)
        requests = [
            reflection_pb2.ServerReflectionRequest(list_services=""),
            reflection_pb2.ServerReflectionRequest(
                file_containing_symbol="inference.GRPCInferenceService"
            ),
        ]
        listed, file = stub.ServerReflectionInfo(iter(requests), timeout=10)
    names = {service.name for service in listed.list_services_response.service}
    assert names == {
        "inference.GRPCInferenceService",
        "grpc.health.v1.Health",
        "grpc.reflection.v1alpha.ServerReflection",
    }
    assert file.file_descriptor_response.file_descriptor_proto


def test_probes_are_answered_and_the_rest_is_told_where_to_go(tiny_server):
    def status(path, port_url=tiny_server.http_url):
        try:
            with urllib.request.urlopen(f"http://{port_url}{path}", timeout=10) as reply:
                return reply.status, reply.read()
        except urllib.error.HTTPError as error:
            return error.code, error.read()

    assert status("/v2/health/live") == status("/v2/health/ready") == (200, b"")
    code, content = status("/v2/models/text_to_video/infer")
    assert code == 404
    assert f"gRPC on port {tiny_server.running.grpc_port}" in json.loads(content)["error"]


def test_metrics_are_ours_and_tritons_in_one_answer(tiny_server):
    with urllib.request.urlopen(tiny_server.metrics_url, timeout=10) as reply:
        assert reply.headers["Content-Type"].startswith("text/plain; version=")
        lines = reply.read().decode().splitlines()
    types = [line.split()[2] for line in lines if line.startswith("# TYPE")]

    assert len(set(types)) == len(types)
    assert {"nv_inference_count", "nv_inference_request_duration_us"} <= set(types)
    assert {"reelserve_requests_total", "reelserve_step_seconds"} <= set(types)
