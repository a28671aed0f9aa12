"""Tells a full server to end, once and twice."""

from __future__ import annotations

import os
import signal
import time
import urllib.error
import urllib.request
from collections import Counter
from pathlib import Path

from reelserve.client import Client, ReelserveError
from reelserve.server.launch.running_server import Server
from reelserve.server.launch.tritons import ServeOptions
from reelserve.tools.bench.metrics_poll import MetricsPoll
from reelserve.tools.faults.deaths import processes_of_triton, seconds_until_gone
from reelserve.tools.faults.fault import MAX_RECOVERY_S, Fault, Trial, all_among, counted
from reelserve.tools.faults.load import (
    ANSWER_TIMEOUT_S,
    CLIP_OUTCOME,
    MANY_STEPS,
    NOTHING,
    POLL_S,
    REFUSED,
    draw,
    error_outcome,
    filled,
    outcomes,
)

NOT_READY = "not ready by gRPC, by HTTP 503, a new request gets UnavailableError"
NOT_READY_WITHIN_S = 2.0
HTTP_TIMEOUT_S = 10.0


def drains() -> list[Trial]:
    """SIGTERM, and SIGTERM again."""
    return [Trial("sigterm", _drain), Trial("sigterm-twice", _end_at_once)]


def _drain(repository: Path) -> Fault:
    with (
        Server(ServeOptions(repository)) as server,
        Client(server.grpc_url) as client,
        MetricsPoll(server.metrics_url) as poll,
    ):
        reference = draw(client, MANY_STEPS)
        with filled(client, poll) as futures:
            started = time.monotonic()
            os.kill(server.pid, signal.SIGTERM)
            told = _told(server, client)
            unfinished = sum(not future.done() for future in futures)
            seen = outcomes(futures, reference)
            status, took_s = server.wait(ANSWER_TIMEOUT_S), time.monotonic() - started
    return Fault(
        "SIGTERM with a clip in every place",
        f"every one of the {len(futures)} clips is drawn to its end; meanwhile {NOT_READY}; then "
        "the server ends with status 0",
        f"{counted(seen)}; meanwhile, with {unfinished} in flight, {told}; status {status} after "
        f"{took_s:.1f} s",
        None,
        seen[NOTHING],
        seen == Counter({CLIP_OUTCOME: len(futures)})
        and unfinished > 0
        and told == NOT_READY
        and status == 0,
    )


def _end_at_once(repository: Path) -> Fault:
    with (
        Server(ServeOptions(repository)) as server,
        Client(server.grpc_url) as client,
        MetricsPoll(server.metrics_url) as poll,
    ):
        reference = draw(client, MANY_STEPS)
        pids = processes_of_triton(server)
        with filled(client, poll) as futures:
            os.kill(server.pid, signal.SIGTERM)
            _told(server, client)
            started = time.monotonic()
            os.kill(server.pid, signal.SIGTERM)
            status, took_s = server.wait(ANSWER_TIMEOUT_S), time.monotonic() - started
            gone_s = seconds_until_gone(pids)
            seen = outcomes(futures, reference)
    return Fault(
        "SIGTERM twice with a clip in every place",
        "every request gets its clip or UnavailableError with a hint; the server ends with status "
        f"0 within {MAX_RECOVERY_S:g} s of the second one, and nothing of it is left",
        f"{counted(seen)}; status {status} after {took_s:.1f} s, all gone {gone_s:.2f} s later",
        None,
        seen[NOTHING],
        all_among(seen, (CLIP_OUTCOME, REFUSED))
        and status == 0
        and took_s <= MAX_RECOVERY_S
        and gone_s < POLL_S,
    )


def _told(server: Server, client: Client) -> str:
    """What a server that drains says about itself."""
    deadline = time.monotonic() + NOT_READY_WITHIN_S
    while client.is_ready() and time.monotonic() < deadline:
        time.sleep(POLL_S / 10)
    try:
        draw(client)
        refused = CLIP_OUTCOME
    except ReelserveError as error:
        refused = error_outcome(error)
    ready = "ready" if client.is_ready() else "not ready"
    return f"{ready} by gRPC, by HTTP {_http_status(server)}, a new request gets {refused}"


def _http_status(server: Server) -> int:
    try:
        url = f"http://{server.http_url}/v2/health/ready"
        with urllib.request.urlopen(url, timeout=HTTP_TIMEOUT_S) as reply:
            return int(reply.status)
    except urllib.error.HTTPError as error:
        return error.code
