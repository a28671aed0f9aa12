from __future__ import annotations

import itertools

import pytest
from tritonclient.grpc import service_pb2

from reelserve.pipeline.contract import STAGES
from reelserve.tools.faults.fuzzing import IN_STREAM, Tally
from reelserve.tools.faults.malformed import (
    BYTE_FAULTS,
    MUTATIONS,
    STREAM,
    UNARY,
    MalformedCall,
    malformed_call,
)
from tests.server.tiny_repository import SPEC

CALL = MalformedCall("wrong dtype", "ModelInfer", (b"",))


def test_the_same_number_gives_the_same_call():
    assert malformed_call(3, 7, SPEC) == malformed_call(3, 7, SPEC)
    assert malformed_call(3, 7, SPEC) != malformed_call(4, 7, SPEC)


def test_calls_have_every_fault():
    faults = {malformed_call(0, number, SPEC).fault for number in range(2000)}
    assert faults == {*MUTATIONS, *BYTE_FAULTS, "other method"}


def test_calls_ask_by_both_methods_with_and_without_progress_and_ask_stages():
    requests = []
    for number in range(2000):
        call = malformed_call(0, number, SPEC)
        if call.fault in MUTATIONS and call.messages:
            request = service_pb2.ModelInferRequest.FromString(call.messages[0])
            progress = request.parameters["progress"].bool_param
            requests.append((call.method, progress, request.model_name in STAGES))
    assert set(requests) == set(itertools.product((UNARY, STREAM), (False, True), (False, True)))


@pytest.mark.parametrize(
    ("text", "status", "message"),
    [
        ("INVALID_ARGUMENT: SEED is -1", "INVALID_ARGUMENT", "SEED is -1"),
        ("NOT_FOUND: model: 2\nlines", "NOT_FOUND", "model: 2\nlines"),
    ],
)
def test_an_error_in_a_stream_begins_with_its_status(text, status, message):
    told = IN_STREAM.fullmatch(text)
    assert told is not None and (told["status"], told["message"]) == (status, message)


@pytest.mark.parametrize(
    ("status", "message", "list_name"),
    [
        ("INTERNAL", 'Traceback (most recent call last): File "x"', "revealing"),
        ("INTERNAL", "cannot open /tmp/x", "revealing"),
        ("INVALID_ARGUMENT", "at 0x7f12a4c3d900", "revealing"),
        ("INVALID_ARGUMENT", "", "wordless"),
        ("DEADLINE_EXCEEDED", "Deadline Exceeded", "silent"),
        ("INTERNAL", "a stage failed", "unexpected"),
        ("UNAVAILABLE", "Socket closed", "silent"),
    ],
)
def test_tally_keeps_answers_that_a_caller_cannot_use(status, message, list_name):
    tally = Tally()
    tally.add(CALL, status, message)
    assert not tally.clean and len(getattr(tally, list_name)) == 1


def test_tally_is_content_when_the_server_itself_says_that_time_is_up():
    tally = Tally()
    tally.add(CALL, "DEADLINE_EXCEEDED", "the deadline of the request has passed")
    assert tally.clean


def test_tally_is_content_with_a_refusal():
    tally = Tally()
    tally.add(CALL, "UNAVAILABLE", "12 requests are in flight, as many as the limit")
    tally.add(CALL, "INVALID_ARGUMENT", "SEED is -1; the limit is 0")
    assert tally.clean and tally.calls == 2
