from __future__ import annotations

import pytest

from reelserve.commands.faults.fuzzing import Tally
from reelserve.commands.faults.malformed import BYTE_FAULTS, MUTATIONS, Call, malformed_call
from tests.server.tiny_repository import SPEC

CALL = Call("wrong dtype", "ModelInfer", (b"",))


def test_the_same_number_gives_the_same_call():
    assert malformed_call(3, 7, SPEC) == malformed_call(3, 7, SPEC)
    assert malformed_call(3, 7, SPEC) != malformed_call(4, 7, SPEC)


def test_calls_have_every_fault():
    faults = {malformed_call(0, number, SPEC).fault for number in range(2000)}
    assert faults == {*MUTATIONS, *BYTE_FAULTS, "other method"}


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
