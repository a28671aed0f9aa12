"""Traces of requests, taken by a collector that may be dead or slow."""

import asyncio
import logging
import socket
import time
from contextlib import asynccontextmanager

import grpc
import pytest

from tests.server.frontend.callers import request, serving
from tests.server.frontend.collector import collecting, values
from tests.server.frontend.fakes import asynchronous, until

tracing = pytest.importorskip("reelserve.server.frontend.tracing")
TRACE, PARENT = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
CALLER = (("traceparent", f"00-{TRACE}-{PARENT}-01"), ("tracestate", "vendor=1"))


@pytest.fixture
def dropped():
    return {"full": 0, "failed": 0}


@pytest.fixture
def begun(dropped, monkeypatch):
    """Begins to trace; what was begun is ended."""
    monkeypatch.setattr(tracing, "DELAY_MS", 10)
    made = []

    def begin(endpoint):
        def count(reason, spans):
            dropped[reason] += spans

        made.append(tracing.Tracing(endpoint, count))
        return made[-1]

    yield begin
    for one in made:
        one.close()


@asynccontextmanager
async def traced(folder, tracer, **options):
    async with serving(folder, **options) as caller:
        caller.rig.service.requests.tracer = tracer
        yield caller


def closed_port():
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return taken.getsockname()[1]


async def drawn(caller, *, metadata=(), steps=2, **fields):
    """A clip whose stages have told of themselves."""
    before = caller.rig.calls()
    call = caller.stub.ModelInfer(request("mine", **fields), metadata=metadata)
    await until(lambda: caller.rig.calls() > before)
    key = caller.rig.upstream.keys[-1]
    clip = next(one for one in caller.rig.service._clips if one.key == key)
    progress = caller.rig.progress
    progress.stage_ended(key, "prompt_processor", clip.accepted)
    began = time.monotonic()
    for step in range(steps):
        progress.stepped(key, step + 1, steps, began)
    progress.stage_ended(key, "video_diffusion", began)
    caller.rig.upstream.draw()
    return await call


@asynchronous
async def test_a_request_is_a_span_and_its_stages_are_its_children(tmp_path, begun):
    with collecting() as collector:
        async with traced(tmp_path, begun(collector.endpoint)) as caller:
            await drawn(caller, seed=7, prompt=b"a secret star")
            await until(lambda: len(collector.spans) == 4)
        (span,) = collector.request_spans()
        stages = collector.stages(span)

    assert collector.resources[0]["service.name"] == "reelserve"
    assert span.name == "inference.GRPCInferenceService/ModelInfer"
    assert (span.kind, span.parent_span_id, span.status.code) == (2, b"", 0), "of a server"
    told = values(span.attributes)
    expected = {
        **{"rpc.system.name": "grpc", "rpc.response.status_code": "OK"},
        **{"rpc.method": span.name, "reelserve.id": "mine", "reelserve.seed": 7},
        **{"reelserve.frames": 16, "reelserve.height": 64, "reelserve.steps": 4},
    }
    assert expected.items() <= told.items() and "secret" not in str(told)
    # The first and the third tell of themselves, what is between them does not.
    assert [stage.name for stage in stages] == [
        *("prompt_processor", "text_encoder", "video_diffusion"),
    ]
    for stage in stages:
        assert span.start_time_unix_nano <= stage.start_time_unix_nano
        assert stage.start_time_unix_nano <= stage.end_time_unix_nano <= span.end_time_unix_nano
    steps = [values(event.attributes)["reelserve.step"] for event in stages[-1].events]
    assert steps == [1, 2]


@asynchronous
async def test_a_caller_s_trace_goes_on_and_one_that_is_not_sampled_is_not_told(tmp_path, begun):
    with collecting() as collector:
        async with traced(tmp_path, begun(collector.endpoint)) as caller:
            unsampled = (("traceparent", f"00-{TRACE}-{PARENT}-00"),)
            await drawn(caller, metadata=unsampled)
            await drawn(caller, metadata=CALLER)
            await drawn(caller, metadata=(("traceparent", "00-nonsense"),))
            await until(lambda: len(collector.request_spans()) == 2)
        first, second = collector.request_spans()

    assert first.trace_id.hex() == TRACE and first.parent_span_id.hex() == PARENT
    assert first.trace_state == "vendor=1"
    assert second.trace_id.hex() != TRACE and second.parent_span_id == b""


@asynchronous
async def test_a_refusal_a_cancel_and_a_deadline_have_their_status(tmp_path, begun):
    with collecting() as collector:
        async with traced(tmp_path, begun(collector.endpoint), limit=2) as caller:
            calls = [
                caller.stub.ModelInfer(request()),
                caller.stub.ModelInfer(request(), timeout=1),
            ]
            await until(lambda: caller.rig.calls() == 2)
            for message in (request(), request(prompt=b"")):
                with pytest.raises(grpc.aio.AioRpcError):
                    await caller.stub.ModelInfer(message)
            calls[0].cancel()
            await until(lambda: len(collector.request_spans()) == 4)
            await asyncio.gather(*calls, return_exceptions=True)
        found = collector.request_spans()

    status = {values(one.attributes)["rpc.response.status_code"]: one for one in found}
    codes = {name: span.status.code for name, span in status.items()}
    # A caller's mistake is no error of the server.
    assert codes == {
        **{"UNAVAILABLE": 2, "DEADLINE_EXCEEDED": 2},
        **{"INVALID_ARGUMENT": 0, "CANCELLED": 0},
    }
    assert "as many as the limit" in status["UNAVAILABLE"].status.message


@asynchronous
async def test_a_dead_collector_costs_spans_alone_and_is_told_of_once(
    tmp_path, begun, dropped, caplog, monkeypatch
):
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_TIMEOUT", "0.2")
    caplog.set_level(logging.WARNING)
    port = closed_port()
    async with traced(tmp_path, begun(f"http://127.0.0.1:{port}")) as caller:
        for number in range(2):
            await drawn(caller)
            await until(lambda failed=4 * (number + 1): dropped["failed"] == failed)
        assert caplog.text.count("takes no spans, which are dropped and counted") == 1
        assert "Failed to connect" in caplog.text or "UNAVAILABLE" in caplog.text
        with collecting(port) as collector:
            while not collector.spans:
                await drawn(caller)
                await asyncio.sleep(0.1)
            await until(lambda: "takes spans again" in caplog.text)
    assert len([one for one in caplog.records if "spans" in one.message]) == 2


@asynchronous
async def test_a_collector_that_stalls_keeps_nobody_waiting_and_fills_no_memory(
    tmp_path, begun, dropped, monkeypatch
):
    monkeypatch.setattr(tracing, "MAX_PENDING", 10)
    monkeypatch.setattr(tracing, "BATCH", 5)
    monkeypatch.setattr(tracing, "CLOSE_S", 0.1)
    with collecting() as collector:
        collector.answering.clear()
        tracer = begun(collector.endpoint)
        async with traced(tmp_path, tracer) as caller:
            for _ in range(4):
                await drawn(caller)
            assert dropped["full"] == 4 * 4 - 10
        await asyncio.to_thread(tracer.close)
    assert sum(dropped.values()) == 4 * 4, "all are accounted for"


@asynchronous
async def test_what_is_left_is_sent_at_the_end(tmp_path, begun, dropped, monkeypatch):
    monkeypatch.setattr(tracing, "DELAY_MS", 60_000)
    with collecting() as collector:
        tracer = begun(collector.endpoint)
        async with traced(tmp_path, tracer) as caller:
            await drawn(caller)
        await asyncio.to_thread(tracer.close)
        assert len(collector.spans) == 4 and sum(dropped.values()) == 0


@asynchronous
async def test_the_environment_names_service_and_headers(tmp_path, begun, monkeypatch):
    monkeypatch.setenv("OTEL_SERVICE_NAME", "clips")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_HEADERS", "x-tenant=studio")
    # The address is the option's alone.
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", f"http://127.0.0.1:{closed_port()}")
    with collecting() as collector:
        async with traced(tmp_path, begun(collector.endpoint)) as caller:
            await drawn(caller)
            await until(lambda: len(collector.spans) == 4)
    assert collector.resources[0]["service.name"] == "clips"
    assert collector.headers["x-tenant"] == "studio"
