"""Keepalive pings of both sides, by real gRPC."""

import asyncio
from contextlib import asynccontextmanager

import grpc
import pytest
from tritonclient.grpc import service_pb2, service_pb2_grpc

from reelserve.server.frontend import connections
from reelserve.server.frontend.connections import Connections
from reelserve.tools.faults.relay import relay
from tests.server.frontend.callers import request, serving
from tests.server.frontend.fakes import asynchronous, until

FASTEST = [
    # The shortest interval that gRPC takes.
    ("grpc.keepalive_time_ms", 1_000),
    ("grpc.keepalive_timeout_ms", 10_000),
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.http2.max_pings_without_data", 0),
]
SILENT_S = 5.5
"""Five pings; a server that takes none ends the connection at the fourth."""


@asynccontextmanager
async def pinging(caller):
    url = f"127.0.0.1:{caller.ports.grpc}"
    options = [*FASTEST, ("grpc.use_local_subchannel_pool", 1)]
    async with grpc.aio.insecure_channel(url, options=options) as channel:
        yield channel, service_pb2_grpc.GRPCInferenceServiceStub(channel)


@asynchronous
async def test_callers_that_ping_are_kept_with_a_silent_call_and_without_calls(tmp_path):
    async with serving(tmp_path) as caller, pinging(caller) as (_, stub):
        async with pinging(caller) as (idle, idle_stub):
            call = stub.ModelInfer(request())
            await until(lambda: caller.rig.calls() == 1)
            assert (await idle_stub.ServerLive(service_pb2.ServerLiveRequest())).live
            with pytest.raises(asyncio.TimeoutError):
                ready = grpc.ChannelConnectivity.READY
                await asyncio.wait_for(idle.wait_for_state_change(ready), SILENT_S)
            caller.rig.upstream.draw()
            await call


@asynchronous
async def test_caller_whose_link_was_cut_in_silence_leaves(tmp_path, monkeypatch):
    monkeypatch.setattr(connections, "PING_TIMEOUT_MS", 500)
    async with serving(tmp_path, connections=Connections(keepalive_s=0.2)) as caller:
        with relay(f"127.0.0.1:{caller.ports.grpc}") as link:
            async with grpc.aio.insecure_channel(link.url) as channel:
                call = service_pb2_grpc.GRPCInferenceServiceStub(channel).ModelInfer(request())
                await until(lambda: caller.rig.calls() == 1)
                # After a few pings that were answered.
                await asyncio.sleep(1.0)
                assert not caller.rig.outcomes()
                link.silence()
                await until(caller.rig.outcomes)
                call.cancel()
        assert caller.rig.outcomes() == {"cancelled": 1}
