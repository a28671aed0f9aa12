"""Connections that do nothing, where few files may be open, and connections that grow old."""

import asyncio
import contextlib
import resource
import subprocess
import sys
import urllib.request

import grpc
from tritonclient.grpc import service_pb2, service_pb2_grpc

from reelserve.server.frontend import connections, probes
from reelserve.server.frontend.connections import Connections
from reelserve.server.launch.open_files import raise_limit
from tests.server.frontend.callers import request, serving
from tests.server.frontend.fakes import asynchronous, until
from tests.server.tiny_repository import SPEC

FILES = 400
"""Limit on open files, below the connections that are made."""
IDLE = """
import resource, socket, sys, time
_, most = resource.getrlimit(resource.RLIMIT_NOFILE)
resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
held = []
for port in map(int, sys.argv[1:]):
    held += [socket.create_connection(("127.0.0.1", port)) for _ in range(200)]
print(len(held), flush=True)
time.sleep(60)
"""


@contextlib.contextmanager
def few_files():
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(FILES, hard), hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def page(port, path):
    with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=10) as reply:
        return reply.status


async def is_ready(port):
    """Whether the server answers on a connection of its own."""
    options = [("grpc.use_local_subchannel_pool", 1)]
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}", options=options) as channel:
        stub = service_pb2_grpc.GRPCInferenceServiceStub(channel)
        ask = service_pb2.ServerReadyRequest()
        return (await stub.ServerReady(ask, timeout=20, wait_for_ready=True)).ready


@asynchronous
async def test_idle_connections_lock_nobody_out_and_write_no_log(tmp_path, monkeypatch, capfd):
    monkeypatch.setattr(connections, "HANDSHAKE_TIMEOUT_MS", 1000)
    with few_files():
        async with serving(tmp_path) as caller:
            ports = caller.ports
            arguments = map(str, (ports.http, ports.metrics, ports.grpc))
            with subprocess.Popen(
                [sys.executable, "-c", IDLE, *arguments], stdout=subprocess.PIPE
            ) as idle:
                try:
                    assert await asyncio.to_thread(idle.stdout.readline) == b"600\n"
                    assert await asyncio.to_thread(page, ports.http, "/v2/health/live") == 200
                    assert await asyncio.to_thread(page, ports.metrics, "/metrics") == 200
                    assert await is_ready(ports.grpc)
                finally:
                    idle.kill()
    assert len(capfd.readouterr().err) < 10_000


def test_connections_are_bounded_by_the_files_that_may_be_open():
    with few_files():
        assert connections.max_connections() == FILES // 2
        assert probes.MAX_CONNECTIONS * 2 < FILES // 2


def test_raise_limit_goes_as_far_as_it_may():
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with few_files():
        assert raise_limit() == hard
        assert resource.getrlimit(resource.RLIMIT_NOFILE) == (hard, hard)


def test_options_bound_messages_by_the_prompts():
    options = dict(Connections().options(SPEC.limits))
    assert options["grpc.max_receive_message_length"] == 2 * 4 * 100 + 64 * 1024
    assert options["grpc.so_reuseport"] == 0
    assert options["grpc.keepalive_time_ms"] == 20_000
    assert "grpc.max_connection_age_ms" not in options


@asynchronous
async def test_an_old_connection_ends_after_its_calls_and_the_next_is_new(tmp_path):
    async with serving(tmp_path, connections=Connections(max_age_s=0.2)) as caller:
        drawn, state = caller.stub.ModelInfer(request()), grpc.ChannelConnectivity.READY
        await until(lambda: caller.rig.calls() == 1)
        # The connection is told to take no new calls; this one goes on.
        await caller.channel.wait_for_state_change(state)
        caller.rig.upstream.draw()
        await drawn
        assert (await caller.stub.ServerLive(service_pb2.ServerLiveRequest())).live
