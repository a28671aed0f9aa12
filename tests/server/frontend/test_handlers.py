"""The methods, by real gRPC, before Tritons that answer as a test tells them to."""

import asyncio
import json

import grpc
import numpy as np
import pytest
from tritonclient.grpc import service_pb2

from reelserve.pipeline.contract import CAPABILITIES, PUBLIC_MODEL, STAGES
from reelserve.server.frontend import stream
from reelserve.server.frontend.call_errors import CallError
from reelserve.server.frontend.messages import output_arrays
from tests.server.frontend.callers import request, serving, status
from tests.server.frontend.fakes import VIDEO, asynchronous, until

ALL_METHODS = service_pb2.DESCRIPTOR.services_by_name["GRPCInferenceService"].methods_by_name
OPEN = {
    "ServerLive",
    "ServerReady",
    "ModelReady",
    "ServerMetadata",
    "ModelMetadata",
    "ModelInfer",
    "ModelStreamInfer",
    "ModelConfig",
    "ModelStatistics",
    "RepositoryIndex",
}


@asynchronous
async def test_unary_call_gives_a_clip_and_its_id(tmp_path):
    async with serving(tmp_path) as caller:
        call = caller.stub.ModelInfer(request("mine"))
        await until(lambda: caller.rig.calls() == 1)
        caller.rig.upstream.draw()
        reply = await call
    outputs = output_arrays(reply)

    assert reply.id == "mine" != caller.rig.upstream.keys[0]
    assert outputs["VIDEO"].item() == VIDEO
    assert list(json.loads(outputs["INFO"].item())["seconds"]) == ["total"]


@asynchronous
async def test_unary_call_ends_with_the_status_of_its_error(tmp_path):
    async with serving(tmp_path) as caller:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await caller.stub.ModelInfer(request(prompt=b""))
        assert status(caught)[0] is grpc.StatusCode.INVALID_ARGUMENT
        call = caller.stub.ModelInfer(request())
        await until(lambda: caller.rig.calls() == 1)
        caller.rig.upstream.fail(RuntimeError("/srv/app/x.py:3: boom"))
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await call

    assert status(caught) == (grpc.StatusCode.INTERNAL, "RuntimeError: boom")


@asynchronous
async def test_unary_call_that_is_cancelled_drops_its_clip(tmp_path):
    async with serving(tmp_path) as caller:
        for options in ({}, {"timeout": 0.2}):
            call = caller.stub.ModelInfer(request(), **options)
            await until(lambda: caller.rig.calls())
            if not options:
                call.cancel()
            with pytest.raises((asyncio.CancelledError, grpc.aio.AioRpcError)):
                await call
            key = caller.rig.upstream.keys[-1]
            await until(lambda key=key: caller.rig.progress.is_cancelled(key))
            caller.rig.upstream.calls.clear()
        await until(lambda: caller.rig.outcomes() == {"cancelled": 2})


@asynchronous
async def test_timeout_parameter_is_a_deadline(tmp_path):
    async with serving(tmp_path) as caller:
        message = request()
        message.parameters["timeout"].int64_param = 100_000
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await caller.stub.ModelInfer(message)

    words = "the deadline of the request has passed"
    assert status(caught) == (grpc.StatusCode.DEADLINE_EXCEEDED, words)


@asynchronous
async def test_plain_stream_answers_once_a_request_in_order(tmp_path):
    async with serving(tmp_path) as caller:
        call, _ = caller.stream(request("first", seed=1), request("second", seed=2))
        await until(lambda: caller.rig.calls() == 2)
        caller.rig.upstream.draw(1, video=b"second")
        await asyncio.sleep(0.05)
        caller.rig.upstream.draw(0, video=b"first")
        replies = [await call.read() for _ in range(2)]
        call.cancel()

    for reply, name in zip(replies, ("first", "second"), strict=True):
        found = reply.infer_response
        assert (reply.error_message, found.id) == ("", name)
        assert found.parameters["triton_final_response"].bool_param
        assert output_arrays(found)["VIDEO"].item() == name.encode()
        assert [output.name for output in found.outputs] == ["VIDEO", "INFO"]


@asynchronous
async def test_stream_with_progress_tells_events_and_then_the_clip(tmp_path):
    async with serving(tmp_path) as caller:
        message = request("mine", progress=True)
        message.outputs.add(name="VIDEO")
        call, _ = caller.stream(message)
        await until(lambda: caller.rig.calls() == 1)
        key = caller.rig.upstream.keys[0]
        caller.rig.progress.stage_ended(key, "prompt_processor", 0.0)
        first = (await call.read()).infer_response
        caller.rig.upstream.draw()
        last = (await call.read()).infer_response
        call.cancel()

    assert first.id == last.id == "mine"
    assert not first.parameters["triton_final_response"].bool_param
    assert json.loads(output_arrays(first)["EVENT"].item())["stage"] == "prompt_processor"
    assert last.parameters["triton_final_response"].bool_param
    assert [output.name for output in last.outputs] == ["EVENT", "VIDEO"]
    event = json.loads(output_arrays(last)["EVENT"].item())
    assert (event["kind"], event["remaining_s"]) == ("clip", 0)


@asynchronous
async def test_stream_with_heartbeat_tells_that_it_lives_and_then_the_clip(tmp_path, monkeypatch):
    monkeypatch.setattr(stream, "QUIET_S", 0.05)
    async with serving(tmp_path) as caller:
        call, _ = caller.stream(request("mine", heartbeat=True))
        await until(lambda: caller.rig.calls() == 1)
        key = caller.rig.upstream.keys[0]
        caller.rig.progress.stage_ended(key, "prompt_processor", 0.0)
        caller.rig.progress.leave_preview(key, np.zeros((16, 4, 2, 2), np.float32))
        told = [(await call.read()).infer_response for _ in range(3)]
        assert caller.rig.calls() == 1, "nobody looks at a preview"
        caller.rig.upstream.draw()
        while "VIDEO" not in output_arrays(told[-1]):
            told.append((await call.read()).infer_response)
        call.cancel()

    *beats, clip = [json.loads(output_arrays(one)["EVENT"].item()) for one in told]
    assert {(beat["kind"], beat["stage"]) for beat in beats} == {("waiting", "text_encoder")}
    assert clip["kind"] == "clip"


@asynchronous
async def test_stream_tells_an_error_and_goes_on(tmp_path):
    async with serving(tmp_path) as caller:
        call, _ = caller.stream(request("bad", prompt=b""), request("good"))
        await until(lambda: caller.rig.calls() == 1)
        caller.rig.upstream.draw()
        bad, good = [await call.read() for _ in range(2)]
        call.cancel()

    assert bad.error_message.startswith("INVALID_ARGUMENT: PROMPT is ''; ")
    assert bad.infer_response.id == "bad"
    assert (good.error_message, good.infer_response.id) == ("", "good")


@asynchronous
async def test_stream_ends_with_the_status_when_the_header_asks_for_it(tmp_path):
    """At once, as Triton's: the caller has not ended its side."""
    async with serving(tmp_path) as caller:
        call, _ = caller.stream(request(prompt=b""), metadata=(("triton_grpc_error", "true"),))
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await call.read()

    assert status(caught)[0] is grpc.StatusCode.INVALID_ARGUMENT


@asynchronous
async def test_stream_ends_with_an_internal_error_when_something_of_ours_fails(
    tmp_path, monkeypatch
):
    async with serving(tmp_path) as caller:
        monkeypatch.setattr(caller.rig.service, "begin", lambda *_: 1 / 0)
        call, _ = caller.stream(request("mine"))
        reply = await call.read()
        call.cancel()

    assert reply.error_message == "INTERNAL: ZeroDivisionError: division by zero"
    assert reply.infer_response.id == "mine"


@pytest.mark.parametrize("progress", [False, True])
@asynchronous
async def test_stream_that_is_cancelled_drops_its_clips(tmp_path, progress):
    async with serving(tmp_path) as caller:
        call, _ = caller.stream(request(progress=progress), request(progress=progress))
        await until(lambda: caller.rig.calls() == 2)
        call.cancel()
        keys = caller.rig.upstream.keys
        await until(lambda: all(caller.rig.progress.is_cancelled(key) for key in keys))
        assert caller.rig.outcomes() == {"cancelled": 2}


@pytest.mark.parametrize("progress", [False, True])
@asynchronous
async def test_stream_that_joins_an_older_clip_has_its_own_deadline(tmp_path, progress):
    async with serving(tmp_path, share_s=60) as caller:
        first = caller.stub.ModelInfer(request(seed=7))
        await until(lambda: caller.rig.calls() == 1)
        await asyncio.sleep(0.6)
        call, _ = caller.stream(request(seed=7, progress=progress), timeout=0.5)
        await until(lambda: caller.rig.metric("shared_answers_total", how="joined") == 1)
        await asyncio.sleep(0.1)
        caller.rig.upstream.draw()
        reply = await call.read()
        call.cancel()
        await first

    assert reply.error_message == "" and len(output_arrays(reply.infer_response)) >= 2


@asynchronous
async def test_stream_with_progress_has_a_deadline(tmp_path):
    async with serving(tmp_path) as caller:
        message = request(progress=True)
        message.parameters["timeout"].int64_param = 200_000
        call, _ = caller.stream(message)
        reply = await call.read()
        call.cancel()

    assert reply.error_message == "DEADLINE_EXCEEDED: the deadline of the request has passed"
    assert caller.rig.outcomes() == {"cancelled": 1}


@pytest.mark.parametrize("method", sorted(set(ALL_METHODS) - OPEN))
@asynchronous
async def test_methods_that_change_something_are_not_offered(tmp_path, method):
    async with serving(tmp_path) as caller:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await caller.channel.unary_unary(f"/inference.GRPCInferenceService/{method}")(b"")

    words = f"method '{method}' is not offered: text_to_video may be called, and what only reads"
    assert status(caught)[0] is grpc.StatusCode.UNIMPLEMENTED
    assert status(caught)[1].startswith(words)


@asynchronous
async def test_unknown_methods_and_services_are_not_offered(tmp_path):
    async with serving(tmp_path) as caller:
        for path in ("/inference.GRPCInferenceService/Explode", "/inference.Other/ModelInfer"):
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await caller.channel.unary_unary(path)(b"")
            assert status(caught)[0] is grpc.StatusCode.UNIMPLEMENTED


@pytest.mark.parametrize("method", sorted(OPEN - {"ModelStreamInfer", "ServerLive", "ServerReady"}))
@asynchronous
async def test_methods_refuse_bytes_that_are_no_message(tmp_path, method):
    async with serving(tmp_path) as caller:
        call = caller.channel.unary_unary(f"/inference.GRPCInferenceService/{method}")
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await call(b"\xff\xff")
    assert status(caught)[0] is grpc.StatusCode.INVALID_ARGUMENT
    assert status(caught)[1].startswith("the 2 bytes of the message are no ")


@asynchronous
async def test_what_is_passed_on_to_triton_is_written_anew(tmp_path):
    async with serving(tmp_path) as caller:
        passed = []

        async def pass_on(method, raw):
            passed.append((method, raw))
            return b""

        caller.rig.upstream.pass_on = pass_on
        known = service_pb2.ModelMetadataRequest(name="denoiser").SerializeToString()
        for method in ("ModelMetadata", "ModelConfig", "ModelReady", "ModelStatistics"):
            # A field of a number that no request has, and nesting that a reader may choke on.
            for unknown in (b"\xa2\x06\x01x", b"\xa3\x06" * 40 + b"\xa4\x06" * 40):
                call = caller.channel.unary_unary(f"/inference.GRPCInferenceService/{method}")
                await call(known + unknown)
        assert [raw for _, raw in passed] == [known] * 8


@asynchronous
async def test_configuration_of_the_public_model_tells_the_checkpoint(tmp_path):
    async with serving(tmp_path) as caller:
        reply = service_pb2.ModelConfigResponse()
        reply.config.name = PUBLIC_MODEL
        reply.config.parameters["other"].string_value = "1"
        caller.rig.upstream.replies["ModelConfig"] = reply.SerializeToString()
        ask = caller.stub.ModelConfig
        found = (await ask(service_pb2.ModelConfigRequest(name=PUBLIC_MODEL))).config
        other = (await ask(service_pb2.ModelConfigRequest(name="denoiser"))).config

    told = json.loads(found.parameters[CAPABILITIES].string_value)
    assert (found.name, found.parameters["other"].string_value) == (PUBLIC_MODEL, "1")
    assert set(told) == {"checkpoint", "engine", "limits", "vocabulary"}
    assert told["limits"]["num_frames"].keys() >= {"low", "high", "default"}
    assert CAPABILITIES not in other.parameters


@pytest.mark.parametrize("stage", [*STAGES, "", "nothing"])
@asynchronous
async def test_other_models_may_not_be_called(tmp_path, stage):
    async with serving(tmp_path) as caller:
        message = request()
        message.model_name = stage
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await caller.stub.ModelInfer(message)
        call, _ = caller.stream(message)
        reply = await call.read()
        call.cancel()

    words = f"model_name is {stage!r}; only text_to_video may be called"
    assert status(caught) == (grpc.StatusCode.PERMISSION_DENIED, words)
    assert reply.error_message == f"PERMISSION_DENIED: {words}"
    assert caller.rig.calls() == 0


@asynchronous
async def test_what_only_reads_is_asked_of_a_triton_that_is_ready(tmp_path):
    async with serving(tmp_path, tritons=2) as caller:
        idle, ready = caller.rig.upstreams
        idle.load.ready = False
        ready.replies["ServerMetadata"] = service_pb2.ServerMetadataResponse(
            name="triton"
        ).SerializeToString()
        reply = await caller.stub.ServerMetadata(service_pb2.ServerMetadataRequest())
        assert reply.name == "triton"


@asynchronous
async def test_statistics_are_those_of_all_tritons(tmp_path):
    async with serving(tmp_path, tritons=2) as caller:
        for count, upstream in enumerate(caller.rig.upstreams, 1):
            reply = service_pb2.ModelStatisticsResponse()
            reply.model_stats.add(name="denoiser", version="1", inference_count=count)
            upstream.replies["ModelStatistics"] = reply.SerializeToString()
        ask = service_pb2.ModelStatisticsRequest()
        (both,) = (await caller.stub.ModelStatistics(ask)).model_stats
        caller.rig.upstreams[0].load.ready = False
        (one,) = (await caller.stub.ModelStatistics(ask)).model_stats
        caller.rig.upstreams[1].load.ready = False
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await caller.stub.ModelStatistics(ask)

    assert (both.inference_count, one.inference_count) == (3, 2)
    assert status(caught) == (
        grpc.StatusCode.UNAVAILABLE,
        "the server is starting; retry after 5 s",
    )


@asynchronous
async def test_errors_of_a_call_are_not_endless(tmp_path):
    async with serving(tmp_path) as caller:
        call = caller.stub.ModelInfer(request())
        await until(lambda: caller.rig.calls() == 1)
        caller.rig.upstream.fail(CallError(grpc.StatusCode.INTERNAL, "x" * 100_000))
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await call

    assert len(status(caught)[1]) == 1000
