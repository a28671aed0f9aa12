"""What storms are made of, without a server."""

from __future__ import annotations

import asyncio
import random
from collections import Counter

import grpc
import pytest

from reelserve.client import InternalError, UnavailableError
from reelserve.server.frontend.call_errors import CallError
from reelserve.server.frontend.messages import parse, read_request
from reelserve.tools.faults import deaths
from reelserve.tools.faults.calls import (
    NO_SERVER,
    STEPS,
    in_own_process,
    invalid_requests,
    send_all,
    status_of,
    valid_requests,
)
from reelserve.tools.faults.load import REFUSED, error_outcome
from tests.server.tiny_repository import SPEC


async def doubled(number: int) -> int:
    return 2 * number


def failure(code: grpc.StatusCode, details: str) -> grpc.aio.AioRpcError:
    return grpc.aio.AioRpcError(code, grpc.aio.Metadata(), grpc.aio.Metadata(), details)


def test_send_all_sends_every_call_once_and_so_many_at_a_time():
    running, most, sent = 0, 0, []

    async def send(number: int) -> str:
        nonlocal running, most
        running += 1
        most = max(most, running)
        sent.append(number)
        await asyncio.sleep(0)
        running -= 1
        return "OK" if number % 2 else "UNAVAILABLE"

    statuses = asyncio.run(send_all(send, calls=20, callers=3))
    assert statuses == Counter(OK=10, UNAVAILABLE=10)
    assert sorted(sent) == list(range(20)) and most == 3


def test_in_own_process_gives_the_result():
    assert in_own_process(doubled, 21) == 42


def test_valid_requests_are_read_by_the_front_end():
    requests = [read_request(parse(raw)) for raw in valid_requests(SPEC, random.Random(0))]
    assert {request.tensors["NUM_INFERENCE_STEPS"].item() for request in requests} == {STEPS}
    assert {request.progress for request in requests} == {False, True}


def test_invalid_requests_are_mostly_refused_before_their_values_are_looked_at():
    def refused(raw: bytes) -> bool:
        try:
            return "PROMPT" not in read_request(parse(raw)).tensors
        except CallError:
            return True

    requests = invalid_requests(SPEC, random.Random(0))
    assert sum(map(refused, requests)) > len(requests) / 2


@pytest.mark.parametrize(
    ("code", "details", "status"),
    [
        (grpc.StatusCode.UNAVAILABLE, "failed to connect to all addresses", NO_SERVER),
        (grpc.StatusCode.UNAVAILABLE, "12 requests are in flight; retry after 2 s", "UNAVAILABLE"),
        (grpc.StatusCode.DEADLINE_EXCEEDED, "Deadline Exceeded", "DEADLINE_EXCEEDED"),
    ],
)
def test_status_of_tells_a_server_that_is_gone(code, details, status):
    assert status_of(failure(code, details)) == status


def test_error_outcome_tells_a_refusal_without_a_hint():
    refusal = UnavailableError("full")
    assert error_outcome(refusal) == f"{REFUSED} without a hint"
    refusal.retry_after_s = 2.0
    assert error_outcome(refusal) == REFUSED
    assert error_outcome(InternalError("a stage")) == "InternalError"


def test_leftovers_are_the_folder_and_the_regions_of_one_start(tmp_path, monkeypatch):
    monkeypatch.setattr(deaths, "SHARED_MEMORY", tmp_path)
    one, other = "0" * 32, "1" * 32
    for name in (f"reelserve-{one}", f"reelserve-{other}"):
        (tmp_path / name).mkdir()
    for name in (f"reelserve_{one}_0_a", f"reelserve_{one}_0_b", f"reelserve_{other}_0_a"):
        (tmp_path / name).touch()
    found = {path.name for path in deaths.leftovers(f"reelserve_{one}_")}
    assert found == {f"reelserve-{one}", f"reelserve_{one}_0_a", f"reelserve_{one}_0_b"}
