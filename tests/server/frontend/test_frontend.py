"""The ports, by real gRPC and HTTP, before Tritons that answer as a test tells them to."""

import asyncio
import json
import socket
import urllib.error
import urllib.request

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from tritonclient.grpc import service_pb2

from reelserve.server.frontend import frontend
from reelserve.server.frontend.connections import Connections
from reelserve.server.frontend.doors import Doors
from reelserve.server.frontend.frontend import FrontEnd, Ports
from reelserve.server.frontend.ports import PortError
from tests.server.frontend.callers import request, serving, status
from tests.server.frontend.fakes import Rig, asynchronous, until
from tests.server.tiny_repository import SPEC


def http(port, path, method="GET"):
    try:
        url = f"http://127.0.0.1:{port}{path}"
        with urllib.request.urlopen(urllib.request.Request(url, method=method), timeout=5) as reply:
            return reply.status, reply.read()
    except urllib.error.HTTPError as error:
        return error.code, error.read()


@asynchronous
async def test_readiness_is_told_everywhere_and_follows_the_service(tmp_path):
    async with serving(tmp_path) as caller:
        health = health_pb2_grpc.HealthStub(caller.channel)
        service = caller.rig.service

        async def told():
            names = ("", "inference.GRPCInferenceService")
            checks = [await health.Check(health_pb2.HealthCheckRequest(service=n)) for n in names]
            ask = service_pb2.ModelReadyRequest(name="text_to_video")
            found = {check.status == check.SERVING for check in checks}
            found.add((await caller.stub.ServerReady(service_pb2.ServerReadyRequest())).ready)
            found.add((await caller.stub.ModelReady(ask)).ready)
            code, _ = await asyncio.to_thread(http, caller.ports.http, "/v2/health/ready")
            return {*found, code == 200}

        assert await told() == {True}
        watch = health.Watch(health_pb2.HealthCheckRequest())
        assert (await watch.read()).status == health_pb2.HealthCheckResponse.SERVING
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await health.Check(health_pb2.HealthCheckRequest(service="other"))
        assert status(caught)[0] is grpc.StatusCode.NOT_FOUND
        service.draining = True
        await caller.front_end.beat()
        assert await told() == {False}
        assert (await watch.read()).status == health_pb2.HealthCheckResponse.NOT_SERVING
        watch.cancel()
        live = await caller.stub.ServerLive(service_pb2.ServerLiveRequest())
        code, _ = await asyncio.to_thread(http, caller.ports.http, "/v2/health/live")
        assert live.live and code == 200


@asynchronous
async def test_an_event_loop_that_is_stuck_does_not_live(tmp_path, monkeypatch):
    async with serving(tmp_path) as caller:
        monkeypatch.setattr(frontend, "STUCK_AFTER_S", -1.0)
        for path in ("/v2/health/live", "/v2/health/ready"):
            assert await asyncio.to_thread(http, caller.ports.http, path) == (503, b"")


@asynchronous
async def test_other_paths_are_told_where_to_go(tmp_path):
    async with serving(tmp_path) as caller:
        ports = caller.ports
        for port, path in (
            (ports.http, "/"),
            (ports.http, "/v2/models/text_to_video/infer"),
            (ports.http, "/metrics"),
            (ports.metrics, "/"),
        ):
            for method in ("GET", "POST"):
                code, content = await asyncio.to_thread(http, port, path, method)
                words = json.loads(content)["error"]
                assert code == 404 and f"by gRPC on port {ports.grpc}" in words
        code, content = await asyncio.to_thread(http, ports.http, "/v2/health/ready", "POST")
        assert (code, json.loads(content)["error"]) == (405, "only GET and HEAD are answered")
        assert await asyncio.to_thread(http, ports.http, "/v2/health/live", "HEAD") == (200, b"")
        code, content = await asyncio.to_thread(http, ports.metrics, "/metrics")
        assert code == 200 and b"reelserve_requests_in_flight 0.0" in content


@asynchronous
async def test_a_message_that_is_too_large_is_refused(tmp_path):
    async with serving(tmp_path) as caller:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await caller.stub.ModelInfer(request(prompt=b"x" * 2**17))

    assert status(caught)[0] is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert caller.rig.calls() == 0


@asynchronous
async def test_the_largest_prompts_fit_into_a_message(tmp_path):
    async with serving(tmp_path) as caller:
        text = "🔴".encode() * SPEC.limits.max_prompt_characters
        call = caller.stub.ModelInfer(request("x" * 1000, prompt=text, negative_prompt=text))
        await until(lambda: caller.rig.calls() == 1)
        caller.rig.upstream.draw()
        await call


@asynchronous
async def test_start_refuses_when_a_port_is_in_use(tmp_path):
    rig = Rig(tmp_path)
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        for ports in ((port, 0, 0), (0, port, 0), (0, 0, port)):
            front_end = FrontEnd(rig.service, Ports("127.0.0.1", *ports), Doors(), Connections())
            words = f"cannot listen on 127.0.0.1:{port}: Address already in use"
            with pytest.raises(PortError, match=words):
                await front_end.start()
            await front_end.close()
