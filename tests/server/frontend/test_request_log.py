"""What the log says of requests, by real gRPC, before Tritons that a test answers for."""

import asyncio
import json
import logging

import grpc
import pytest

from reelserve.server.frontend.api_keys import ApiKeys, KeyHolder, key_line, new_key
from reelserve.server.frontend.call_errors import unavailable
from reelserve.server.frontend.doors import Doors
from reelserve.server.frontend.line_limit import LINES
from reelserve.server.frontend.request_log import REQUESTS_LOGGER, RequestLog
from reelserve.server.progress import ProgressFolder
from tests.server.frontend.callers import request, serving
from tests.server.frontend.fakes import asynchronous, until

FORGED = "mine\nINFO server: request\x1b[31m"
SHAPE = {"frames": 16, "height": 64, "width": 64, "steps": 4, "fps": 8}


class Lines:
    """What was said of requests so far."""

    def __init__(self, caplog):
        self._caplog = caplog
        caplog.set_level(logging.INFO, REQUESTS_LOGGER)

    def all(self, message="request"):
        records = [one for one in self._caplog.records if one.name == REQUESTS_LOGGER]
        return [record.fields for record in records if record.message == message]

    async def one(self):
        await until(self.all)
        (fields,) = self.all()
        return fields


@pytest.fixture
def lines(caplog):
    return Lines(caplog)


async def drawn(caller, call, **info):
    await until(lambda: caller.rig.calls() == 1)
    caller.rig.upstream.draw(**info)
    return await call


@asynchronous
async def test_a_clip_leaves_one_line_that_says_how_it_was_drawn(tmp_path, lines):
    async with serving(tmp_path) as caller:
        await drawn(caller, caller.stub.ModelInfer(request(FORGED, seed=7)))
        fields = await lines.one()

        assert fields.pop("seconds") >= fields.pop("waited_s") >= 0
        assert fields.pop("clip") == caller.rig.upstream.keys[0]
    assert fields == {
        **{"id": FORGED, "method": "ModelInfer", "code": "OK", "triton": "gpu0", "seed": 7},
        **{**SHAPE, "priority": "interactive"},
    }


@asynchronous
async def test_the_seed_is_the_one_that_was_drawn_with(tmp_path, lines):
    async with serving(tmp_path) as caller:
        await drawn(caller, caller.stub.ModelInfer(request()), seed=1234)
        assert (await lines.one())["seed"] == 1234


@asynchronous
async def test_seconds_waited_are_those_before_stages_and_the_first_step(tmp_path, lines):
    async with serving(tmp_path) as caller:
        call = caller.stub.ModelInfer(request())
        await until(lambda: caller.rig.calls() == 1)
        progress, key = ProgressFolder(caller.rig.folder), caller.rig.upstream.keys[0]
        began = next(iter(caller.rig.service._clips)).accepted
        await asyncio.sleep(0.02)
        progress.stage_ended(key, "prompt_processor", began + 0.001)
        progress._append(key, f"ended text_encoder {began + 5} {began + 6}\n")
        progress._append(key, f"step 1 4 {began + 8} {began + 9}\n")
        progress._append(key, f"ended video_diffusion {began + 6} {began + 12}\n")
        caller.rig.upstream.draw()
        await call
        # 5 s from accepted to the encoder but what the stage before it took, and 2 s to the step.
        assert 6 < (await lines.one())["waited_s"] <= 7.001


@pytest.mark.parametrize("wanted", [False, True])
@asynchronous
async def test_prompts_are_told_only_where_that_is_wanted(tmp_path, lines, wanted):
    async with serving(tmp_path) as caller:
        caller.rig.service.requests = RequestLog(prompts=wanted)
        await drawn(caller, caller.stub.ModelInfer(request(prompt=b"a star \x1b[31m")))
        fields = await lines.one()
    assert fields.get("prompt") == ("a star \x1b[31m" if wanted else None)
    assert wanted or "star" not in json.dumps(fields)


def refused(**fields):
    return request("mine", **fields)


@pytest.mark.parametrize("method", ["ModelInfer", "ModelStreamInfer"])
@pytest.mark.parametrize(
    ("message", "code", "words"),
    [
        (refused(prompt=b""), "INVALID_ARGUMENT", "PROMPT is"),
        (refused(num_frames=9999), "INVALID_ARGUMENT", "NUM_FRAMES is 9999"),
    ],
    ids=["blank", "too long"],
)
@asynchronous
async def test_a_refusal_leaves_its_words(tmp_path, lines, method, message, code, words):
    async with serving(tmp_path) as caller:
        if method == "ModelInfer":
            with pytest.raises(grpc.aio.AioRpcError):
                await caller.stub.ModelInfer(message)
        else:
            call, stopped = caller.stream(message)
            await call.read()
            stopped.set()
        fields = await lines.one()
    assert fields.pop("seconds") >= 0 and fields.pop("error").startswith(words)
    assert fields == {"id": "mine", "method": method, "code": code}


@asynchronous
async def test_how_a_clip_was_lost_is_told_with_its_stage(tmp_path, lines):
    async with serving(tmp_path) as caller:
        call = caller.stub.ModelInfer(request())
        await until(lambda: caller.rig.calls() == 1)
        caller.rig.upstream.fail(unavailable("it died", 5))
        with pytest.raises(grpc.aio.AioRpcError):
            await call
        fields = await lines.one()
    told = fields["code"], fields["error"], fields["stage"]
    assert told == ("UNAVAILABLE", "it died; retry after 5 s", "prompt_processor")


@pytest.mark.parametrize("how", ["cancel", "deadline"])
@asynchronous
async def test_a_caller_that_leaves_is_told_apart_from_one_that_is_too_late(tmp_path, lines, how):
    async with serving(tmp_path) as caller:
        call = caller.stub.ModelInfer(request(), timeout=0.3 if how == "deadline" else None)
        await until(lambda: caller.rig.calls() == 1)
        if how == "cancel":
            call.cancel()
        fields = await lines.one()
        caller.rig.upstream.draw()
        with pytest.raises((asyncio.CancelledError, grpc.aio.AioRpcError)):
            await call
    expected = {"cancel": "CANCELLED", "deadline": "DEADLINE_EXCEEDED"}[how]
    assert fields["code"] == expected and fields["clip"]


@asynchronous
async def test_an_answer_of_another_request_is_told_as_such(tmp_path, lines):
    async with serving(tmp_path, share_s=60) as caller:
        await drawn(caller, caller.stub.ModelInfer(request(seed=1)))
        await caller.stub.ModelInfer(request(seed=1))
        await until(lambda: len(lines.all()) == 2)
        first, second = lines.all()
    assert "shared" not in first and second["shared"] == "cached"
    assert first["clip"] == second["clip"] and "waited_s" not in second


@asynchronous
async def test_a_storm_of_refusals_leaves_some_lines_and_their_number(tmp_path, lines):
    count = LINES + 30
    async with serving(tmp_path) as caller:
        calls = [caller.stub.ModelInfer(request(prompt=b"")) for _ in range(count)]
        await asyncio.gather(*calls, return_exceptions=True)
        assert len(lines.all()) == LINES
        # Clips are told one by one meanwhile.
        await drawn(caller, caller.stub.ModelInfer(request()))
        await until(lambda: len(lines.all()) == LINES + 1)
        assert lines.all("requests without a line") == []
    (left_out,) = lines.all("requests without a line")
    assert left_out.pop("within_s") >= 0
    assert left_out == {"code": "INVALID_ARGUMENT", "count": 30}


@asynchronous
async def test_keys_are_told_by_their_names_and_a_stranger_by_its_status(tmp_path, lines):
    file, key = tmp_path / "api_keys.txt", new_key()
    file.write_text(key_line(KeyHolder("studio", 1), key))
    async with serving(tmp_path, Doors(keys=ApiKeys(file))) as caller:
        for presented in (key, new_key()):
            call = caller.stub.ModelInfer(
                request(prompt=b""), metadata=(("authorization", f"Bearer {presented}"),)
            )
            with pytest.raises(grpc.aio.AioRpcError):
                await call
        await until(lambda: len(lines.all()) == 2)
    known, stranger = lines.all()
    assert known["key"] == "studio" and stranger == {"code": "UNAUTHENTICATED"}
    assert key not in json.dumps(lines.all())


@asynchronous
async def test_a_mistake_of_ours_leaves_its_stack_trace_in_the_log_alone(
    tmp_path, lines, caplog, monkeypatch
):
    async with serving(tmp_path) as caller:

        def begin(*arguments):
            raise RuntimeError("/srv/app/x.py:3: boom")

        monkeypatch.setattr(caller.rig.service, "begin", begin)
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await caller.stub.ModelInfer(request())
        fields = await lines.one()
    assert caught.value.details() == "RuntimeError: boom" == fields["error"]
    assert fields["code"] == "INTERNAL"
    assert "Traceback" in caplog.text and "in begin" in caplog.text


@asynchronous
async def test_a_clip_is_answered_when_it_cannot_be_told(tmp_path, caplog):
    class Broken:
        def trace(self, record, described):
            raise RuntimeError("no trace")

    async with serving(tmp_path) as caller:
        caller.rig.service.requests.tracer = Broken()
        reply = await drawn(caller, caller.stub.ModelInfer(request("mine")))
    assert reply.id == "mine" and "a request cannot be told" in caplog.text


def test_long_texts_are_cut_off():
    log = RequestLog()
    with log.watch("ModelInfer", ()) as record:
        record.id = "x" * 5000
    assert len(record.described(prompts=False)["id"]) == 1001
