"""Storms of calls whose callers do not wait: short deadlines, cancels."""

from __future__ import annotations

import asyncio
import random
import time
import urllib.request
from collections import Counter
from collections.abc import Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import grpc

from reelserve.client import Client
from reelserve.pipeline.checkpoint import CheckpointSpec
from reelserve.server.launch.running_server import Server
from reelserve.server.launch.tritons import ServeOptions
from reelserve.tools.bench.metrics_poll import MetricsPoll
from reelserve.tools.faults.calls import (
    NO_SERVER,
    connections,
    in_own_process,
    invalid_requests,
    send_all,
    status_of,
    streaming,
    unary,
    valid_requests,
)
from reelserve.tools.faults.deaths import processes_of_triton
from reelserve.tools.faults.fault import Fault, Trial, counted, recovers
from reelserve.tools.faults.fuzzing import EXPECTED
from reelserve.tools.faults.load import CLIP_OUTCOME, draw, outcomes, recovery

CALLERS = 12
"""Calls at once; more would wait in this process until their time is up."""
DEADLINES_S = (0.0005, 0.035)
VALID_SHARE = 0.3
CANCELLED_AT_ONCE = 100
SENT_S = 0.03
"""Pause in which calls leave this process before they are cancelled."""
METRICS_TIMEOUT_S = 10.0
REQUESTS = "reelserve_requests_total{"

Storm = Callable[[str, int, CheckpointSpec], Coroutine[Any, Any, Counter[str]]]
"""Sends so many calls to the server at `host:port`, and counts their statuses."""


def storms(deadlines: int, cancels: int) -> list[Trial]:
    """Both storms.

    Args:
        deadlines: Calls with a short deadline.
        cancels: Calls that are cancelled.
    """
    low, high = (1e3 * seconds for seconds in DEADLINES_S)
    share = f"{VALID_SHARE:.0%} of them valid"
    words = f"{deadlines} calls with deadlines of {low:g} to {high:g} ms, {share}"
    cancelled = f"{cancels} calls that are cancelled as soon as they are sent"
    return [
        Trial("deadlines", lambda repository: _storm(repository, words, deadlines, deadline_storm)),
        Trial("cancels", lambda repository: _storm(repository, cancelled, cancels, cancel_flood)),
    ]


def _storm(repository: Path, fault: str, calls: int, storm: Storm) -> Fault:
    spec = CheckpointSpec.load(repository / "prompt_processor" / "1")
    with Server(ServeOptions(repository)) as server, Client(server.grpc_url) as client:
        reference = draw(client)
    # A server that has drawn nothing yet accepts every deadline: it cannot tell that it is short.
    with (
        Server(ServeOptions(repository)) as server,
        Client(server.grpc_url) as client,
        MetricsPoll(server.metrics_url) as poll,
    ):
        before, started = processes_of_triton(server), time.monotonic()
        statuses = in_own_process(storm, server.grpc_url, calls, spec)
        ended = time.monotonic()
        arrived = requests_ended(server.metrics_url)
        recovered_s = recovery(client, ended, reference)
        limit = int(poll.until(lambda now: now.idle).limit)
        with ThreadPoolExecutor(limit) as pool:
            after = outcomes([pool.submit(draw, client) for _ in range(limit)], reference)
        lives = processes_of_triton(server) == before
    lost = statuses[NO_SERVER] + calls - statuses.total()
    return Fault(
        fault,
        "every call ends by its own status; no process dies; the next clip is drawn within 10 s, "
        "and then one in every place at once",
        f"{counted(statuses)} in {ended - started:.0f} s, {arrived} counted by the server; "
        f"processes {'live' if lives else 'died'}; then {counted(after)}",
        recovered_s,
        lost,
        lives
        and not lost
        and not set(statuses) - {*EXPECTED, "CANCELLED"}
        and after == Counter({CLIP_OUTCOME: limit})
        and recovers(recovered_s),
    )


def requests_ended(metrics_url: str) -> int:
    """Requests that a server has counted, however they ended."""
    with urllib.request.urlopen(metrics_url, timeout=METRICS_TIMEOUT_S) as reply:
        lines = reply.read().decode().splitlines()
    return int(sum(float(line.split()[-1]) for line in lines if line.startswith(REQUESTS)))


async def deadline_storm(
    url: str, calls: int, spec: CheckpointSpec, callers: int = CALLERS
) -> Counter[str]:
    """Unary calls, valid and invalid ones, that give up after milliseconds."""
    rng = random.Random(0)
    valid, invalid = valid_requests(spec, rng), invalid_requests(spec, rng)
    async with connections(url) as channels:
        methods = unary(channels)

        async def send(number: int) -> str:
            raw = rng.choice(valid if rng.random() < VALID_SHARE else invalid)
            try:
                await methods[number % len(methods)](raw, timeout=rng.uniform(*DEADLINES_S))
            except grpc.aio.AioRpcError as error:
                return status_of(error)
            return "OK"

        return await send_all(send, calls, callers)


async def cancel_flood(url: str, calls: int, spec: CheckpointSpec) -> Counter[str]:
    """Valid calls, unary and streamed in turn, that are cancelled as soon as they are sent."""
    requests, statuses = valid_requests(spec, random.Random(0)), Counter[str]()
    async with connections(url) as channels:
        methods = [*unary(channels), *streaming(channels)]
        for first in range(0, calls, CANCELLED_AT_ONCE):
            numbers = range(first, min(calls, first + CANCELLED_AT_ONCE))
            sent = [
                methods[number % len(methods)](requests[number % len(requests)])
                for number in numbers
            ]
            await asyncio.sleep(SENT_S)
            for call in sent:
                call.cancel()
            statuses.update([(await call.code()).name for call in sent])
    return statuses
