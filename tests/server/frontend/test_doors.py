"""API keys at the gRPC port, before Tritons that answer as a test tells them to."""

import asyncio
import urllib.request

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc
from tritonclient.grpc import service_pb2

from reelserve.client._addresses import Address
from reelserve.client._exceptions import AccessDeniedError, UnavailableError, error_from_status
from reelserve.client._link import Link
from reelserve.server.frontend import doors
from reelserve.server.frontend.api_keys import ApiKeys, KeyHolder, key_line, new_key
from reelserve.server.frontend.doors import Doors
from reelserve.server.frontend.reloaded import DoorError
from reelserve.server.frontend.upstream import SERVICE
from tests.server.frontend.callers import request, serving, status
from tests.server.frontend.fakes import asynchronous, until

METHODS = service_pb2.DESCRIPTOR.services_by_name["GRPCInferenceService"].methods
STUDIO, LAB = new_key(), new_key()
REFUSED = (
    grpc.StatusCode.UNAUTHENTICATED,
    "the API key is missing or not known; send one as `authorization: Bearer KEY`",
)


def bearer(key):
    return (("authorization", f"Bearer {key}"),)


@pytest.fixture
def file(tmp_path):
    """Keys of a studio, with one clip in flight, and of a lab, with two."""
    file = tmp_path / "api_keys.txt"
    lines = (key_line(KeyHolder("studio", 1), STUDIO), key_line(KeyHolder("lab", 2), LAB))
    file.write_text("\n".join(lines))
    return file


@pytest.fixture
def closed(file):
    return Doors(keys=ApiKeys(file))


def refusals(caller, reason):
    return caller.rig.metric("refusals_total", model="text_to_video", reason=reason)


WRONG = {
    "none": None,
    "unknown": bearer(new_key()),
    "empty": bearer(""),
    "bare": (("authorization", STUDIO),),
    "basic": (("authorization", f"Basic {STUDIO}"),),
    "twice": bearer(STUDIO) + bearer(STUDIO),
    "its hash": bearer(key_line(KeyHolder("studio", 1), STUDIO).split()[-1]),
    "elsewhere": (("x-api-key", STUDIO),),
}


@asynchronous
async def test_a_call_without_a_known_key_is_refused_in_the_same_words(tmp_path, closed, capfd):
    async with serving(tmp_path, closed) as caller:
        for metadata in WRONG.values():
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await caller.stub.ModelInfer(request(), metadata=metadata, timeout=10)
            assert status(caught) == REFUSED
            link = Link(Address("server:1", "server:1"), caller.channel)
            stream = link.stream(request(), metadata=metadata, timeout=10)
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await stream.read()
            assert status(caught) == REFUSED
        assert isinstance(error_from_status(*REFUSED, "server:1"), AccessDeniedError)
        assert refusals(caller, "key") == 2 * len(WRONG)
        assert caller.rig.calls() == 0 and not caller.rig.outcomes()
    assert capfd.readouterr().err == ""


@asynchronous
async def test_every_method_asks_for_a_key_but_probes(tmp_path, closed):
    async with serving(tmp_path, closed) as caller:
        paths = [f"/{SERVICE}/{method.name}" for method in METHODS]
        refused = []
        for path in [*paths, f"/{SERVICE}/NoSuchMethod", "/other.Service/Method"]:
            if (
                await caller.channel.unary_unary(path)(b"", timeout=10).code()
                is grpc.StatusCode.UNAUTHENTICATED
            ):
                refused.append(path.rpartition("/")[2])
        open_to_all = {method.name for method in METHODS} - set(refused)
        assert open_to_all == {"ServerLive", "ServerReady"}
        assert refused[-2:] == ["NoSuchMethod", "Method"]

        health = health_pb2_grpc.HealthStub(caller.channel)
        assert (await health.Check(health_pb2.HealthCheckRequest())).status == 1
        watch = health.Watch(health_pb2.HealthCheckRequest())
        assert (await watch.read()).status == 1
        watch.cancel()


@asynchronous
async def test_reflection_asks_for_a_key(tmp_path, closed):
    async with serving(tmp_path, closed) as caller:
        stub = reflection_pb2_grpc.ServerReflectionStub(caller.channel)
        ask = reflection_pb2.ServerReflectionRequest(list_services="")
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await stub.ServerReflectionInfo(iter([ask])).read()
        assert status(caught) == REFUSED
        told = await stub.ServerReflectionInfo(iter([ask]), metadata=bearer(LAB)).read()
        assert SERVICE in {one.name for one in told.list_services_response.service}


@asynchronous
async def test_a_large_message_without_a_key_is_refused_before_it_is_read(tmp_path, closed):
    async with serving(tmp_path, closed) as caller:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await caller.stub.ModelInfer(request(prompt=b"x" * 2**17))
        assert status(caught)[0] is grpc.StatusCode.UNAUTHENTICATED


@pytest.mark.parametrize("scheme", ["Bearer", "bearer"])
@asynchronous
async def test_a_caller_over_its_own_limit_is_told_when_to_come_back(tmp_path, closed, scheme):
    metadata = (("authorization", f"{scheme} {STUDIO}"),)
    async with serving(tmp_path, closed, limit=9) as caller:
        drawn = caller.stub.ModelInfer(request(), metadata=metadata)
        await until(lambda: caller.rig.calls() == 1)
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await caller.stub.ModelInfer(request(), metadata=metadata, timeout=10)
        code, words = status(caught)
        assert code is grpc.StatusCode.UNAVAILABLE
        assert words == "studio has 1 of at most 1 clips in flight; retry after 5 s"
        error = error_from_status(code, words, "server:1")
        assert isinstance(error, UnavailableError) and error.retry_after_s == 5
        assert refusals(caller, "quota") == 1

        # Another one's limit is its own, and a stream counts as a call does.
        stream, stopped = caller.stream(*[request(str(i)) for i in range(3)], metadata=bearer(LAB))
        await until(lambda: caller.rig.calls() == 3 and refusals(caller, "quota") == 2)
        for number in range(3):
            caller.rig.upstream.draw(number)
        await drawn
        answers = [await stream.read() for _ in range(3)]
        refused = [one.error_message for one in answers if one.error_message]
        assert len(refused) == 1 and refused[0].startswith(
            "UNAVAILABLE: lab has 2 of at most 2 clips"
        )
        stopped.set()

        again = caller.stub.ModelInfer(request(), metadata=metadata)
        await until(lambda: caller.rig.calls() == 4)
        caller.rig.upstream.draw()
        await again


@asynchronous
async def test_a_clip_that_was_left_counts_until_triton_has_ended_it(tmp_path, closed):
    async with serving(tmp_path, closed, limit=9) as caller:
        left = caller.stub.ModelInfer(request(), metadata=bearer(STUDIO))
        await until(lambda: caller.rig.calls() == 1)
        left.cancel()
        await until(caller.rig.outcomes)
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await caller.stub.ModelInfer(request(), metadata=bearer(STUDIO))
        assert "studio has 1 of at most 1" in status(caught)[1]


@asynchronous
async def test_a_key_that_was_taken_away_ends_in_open_streams_too(
    tmp_path, file, closed, monkeypatch
):
    monkeypatch.setattr(doors, "LOOK_S", 0.01)
    async with serving(tmp_path, closed) as caller:
        call = caller.stub.ModelStreamInfer(metadata=bearer(STUDIO))
        await call.write(request("first"))
        await until(lambda: caller.rig.calls() == 1)
        file.write_text(key_line(KeyHolder("lab", 2), LAB))
        await until(lambda: closed.keys.caller(STUDIO) is None)
        await call.write(request("second"))
        caller.rig.upstream.draw()

        assert (await call.read()).infer_response.id == "first"
        assert (await call.read()).error_message == f"UNAUTHENTICATED: {REFUSED[1]}"
        assert refusals(caller, "key") == 1
        await call.done_writing()


@asynchronous
async def test_neither_metrics_nor_logs_hold_a_key(tmp_path, closed, capfd, caplog):
    async with serving(tmp_path, closed) as caller:
        call = caller.stub.ModelInfer(request(), metadata=bearer(STUDIO))
        await until(lambda: caller.rig.calls() == 1)
        caller.rig.upstream.draw()
        await call
        url = f"http://127.0.0.1:{caller.ports.metrics}/metrics"
        page = await asyncio.to_thread(lambda: urllib.request.urlopen(url).read().decode())
    sent, _ = caller.rig.upstream.calls[0]
    hidden = (STUDIO, key_line(KeyHolder("studio", 1), STUDIO).split()[-1])
    for text in (page, caplog.text, capfd.readouterr().err, str(sent), repr(closed)):
        assert not any(word in text for word in hidden)


class AsksCallers:
    asks_callers = True


class AsksNobody:
    asks_callers = False


@pytest.mark.parametrize("host", ["127.0.0.1", "127.8.0.1", "::1"])
def test_anybody_may_call_within_the_machine(host):
    Doors().check_address(host)


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "10.0.0.7", "fe80::1%eth0"])
def test_strangers_may_call_when_that_is_wanted_alone(host, closed):
    for refused in (Doors(), Doors(tls=AsksNobody())):
        with pytest.raises(DoorError) as caught:
            refused.check_address(host)
        words = str(caught.value)
        assert words.startswith(f"--host is {host}, ") and "\n" not in words
        assert all(way in words for way in ("--api-keys", "--tls-client-ca", "--allow-anonymous"))
    for taken in (closed, Doors(tls=AsksCallers()), Doors(allow_anonymous=True)):
        taken.check_address(host)


def test_keys_in_plain_text_are_warned_of(closed, caplog):
    closed.check_address("::1")
    Doors(tls=AsksNobody(), keys=closed.keys).check_address("0.0.0.0")
    assert not caplog.messages
    closed.check_address("0.0.0.0")
    assert caplog.messages[0].startswith("API keys come to 0.0.0.0 in plain text")
