"""Callers that mean harm, by TCP: what they send costs others nothing, and is bounded."""

import asyncio
import gzip
import socket
import threading
import time

import grpc
import pytest
from tritonclient.grpc import service_pb2

from reelserve.server.frontend import connections, probes
from tests.server.frontend.callers import serving
from tests.server.frontend.fakes import asynchronous
from tests.server.frontend.test_frontend import http

LIVE = service_pb2.ServerLiveRequest()
HEAD = b"POST /v2/models/text_to_video/infer HTTP/1.1\r\nHost: x\r\n"
FLOODS = {
    "chunks of one byte": HEAD + b"Transfer-Encoding: chunked\r\n\r\n" + b"1\r\na\r\n" * 200_000,
    "nested JSON": HEAD + b"Content-Length: 400000\r\n\r\n" + b"[" * 400_000,
    "a gzip bomb": HEAD + b"Content-Encoding: gzip\r\n\r\n" + gzip.compress(bytes(2**26)),
    "a long header": HEAD + b"X: " + b"a" * 2**21,
    "many headers": HEAD + b"X: a\r\n" * 100_000,
    "a long line": b"GET /" + b"a" * 2**20,
    "many requests at once": b"GET /v2/health/live HTTP/1.1\r\nHost: x\r\n\r\n" * 10_000,
    "HTTP/2": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes(2**16),
    "no HTTP": bytes(range(256)) * 256,
    "nothing": b"",
}


def sent(port, content):
    """What comes back for some bytes, until the connection ends."""
    answer = b""
    with socket.create_connection(("127.0.0.1", port), timeout=10) as connection:
        try:
            connection.sendall(content)
            connection.shutdown(socket.SHUT_WR)
            while part := connection.recv(2**16):
                answer += part
        except OSError:
            # Cut off by a server that has read enough.
            pass
    return answer


@asynchronous
async def test_floods_of_the_http_ports_are_cut_off(tmp_path, capfd):
    async with serving(tmp_path) as caller:
        for name, content in FLOODS.items():
            for port in (caller.ports.http, caller.ports.metrics):
                answer = await asyncio.to_thread(sent, port, content)
                assert answer.count(b"HTTP/1.") <= 1, name
                assert b"Python" not in answer and b"Traceback" not in answer, name
        assert await asyncio.to_thread(http, caller.ports.http, "/v2/health/live") == (200, b"")
        assert (await caller.stub.ServerLive(LIVE)).live
    assert capfd.readouterr() == ("", ""), "broken connections are nothing to tell"


@asynchronous
async def test_slow_requests_are_cut_off_though_they_go_on(tmp_path, monkeypatch):
    monkeypatch.setattr(probes, "LONGEST_S", 0.2)
    async with serving(tmp_path) as caller:

        def drip():
            address = ("127.0.0.1", caller.ports.http)
            with socket.create_connection(address, timeout=10) as connection:
                connection.sendall(HEAD)
                with pytest.raises(OSError):
                    for _ in range(1000):
                        connection.sendall(b"X: a\r\n")
                        time.sleep(0.01)

        await asyncio.to_thread(drip)


@asynchronous
async def test_idle_connections_take_no_probe_and_no_thread(tmp_path, monkeypatch):
    monkeypatch.setattr(probes, "MAX_CONNECTIONS", 8)
    async with serving(tmp_path) as caller:
        address = ("127.0.0.1", caller.ports.http)
        idle = [socket.create_connection(address, timeout=10) for _ in range(100)]
        assert await asyncio.to_thread(http, caller.ports.http, "/v2/health/live") == (200, b"")
        threads = [one for one in threading.enumerate() if "process_request" in one.name]
        assert len(threads) <= 16
        for one in idle:
            one.close()


@asynchronous
async def test_grpc_connections_are_bounded_and_must_speak_http2(tmp_path, monkeypatch):
    monkeypatch.setattr(connections, "MAX_CONNECTIONS", 8)
    monkeypatch.setattr(connections, "HANDSHAKE_TIMEOUT_MS", 500)
    async with serving(tmp_path) as caller:
        assert (await caller.stub.ServerLive(LIVE)).live
        address = ("127.0.0.1", caller.ports.grpc)

        def ended():
            idle = [socket.create_connection(address, timeout=10) for _ in range(50)]
            for one in idle:
                with one:
                    while one.recv(1000):
                        pass

        await asyncio.to_thread(ended)
        assert (await caller.stub.ServerLive(LIVE)).live
        async with grpc.aio.insecure_channel("{}:{}".format(*address)) as channel:
            call = channel.unary_unary("/inference.GRPCInferenceService/ServerLive")
            assert await call(b"", wait_for_ready=True)


@asynchronous
async def test_garbage_on_the_grpc_port_ends_its_own_connection_alone(tmp_path):
    preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
    garbage = (
        *FLOODS.values(),
        preface + b"\xff" * 10_000,
        preface + b"\0\0\0\4\0\0\0\0\0" + b"\xff\xff\xff\1\5\0\0\0\1" + bytes(10_000),
        preface + b"\0\0\0\4\0\0\0\0\0" * 10_000,
    )
    async with serving(tmp_path) as caller:
        for content in garbage:
            answer = await asyncio.to_thread(sent, caller.ports.grpc, content)
            assert b"Traceback" not in answer
        assert (await caller.stub.ServerLive(LIVE)).live
        assert caller.rig.calls() == 0


@asynchronous
async def test_the_limit_of_a_message_holds_after_decompression(tmp_path):
    async with serving(tmp_path) as caller:
        url = f"127.0.0.1:{caller.ports.grpc}"
        async with grpc.aio.insecure_channel(url, compression=grpc.Compression.Gzip) as channel:
            for method in ("ModelInfer", "ServerLive", "RepositoryIndex"):
                call = channel.unary_unary(f"/inference.GRPCInferenceService/{method}")
                # 49 kB as it is sent.
                with pytest.raises(grpc.aio.AioRpcError) as caught:
                    await call(bytes(50 * 10**6))
                assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        assert caller.rig.calls() == 0


def test_connections_leave_files_for_the_rest(monkeypatch):
    for files, expected in ((1024, 512), (20_000, 4096), (-1, 4096)):
        monkeypatch.setattr(connections.resource, "getrlimit", lambda _, soft=files: (soft, soft))
        assert connections.max_connections() == expected
