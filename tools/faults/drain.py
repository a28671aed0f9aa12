"""Tells a full server to end, once and twice."""

from __future__ import annotations

import os
import signal
import time
import urllib.error
import urllib.request
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass
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
    NOTHING,
    POLL_S,
    REFUSED,
    SLOW_CLIP,
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


@dataclass
class _Draining:
    """A server that was told to end while it had a clip in every place."""

    server: Server
    pids: list[int]
    futures: list[Future[bytes]]
    reference: bytes
    told: str = ""
    """What the server says about itself meanwhile."""
    unfinished: int = 0
    """Clips that were in flight when it had said so."""
    signalled: float = 0.0
    """When it was told to end, the last time."""

    def send_sigterm(self) -> None:
        """Tells it to end."""
        self.signalled = time.monotonic()
        os.kill(self.server.pid, signal.SIGTERM)

    def wait(self) -> tuple[int, float]:
        """Its exit status, and how long it took since it was told the last time."""
        return self.server.wait(ANSWER_TIMEOUT_S), time.monotonic() - self.signalled

    def outcomes(self) -> Counter[str]:
        """What its clips became."""
        return outcomes(self.futures, self.reference)


@contextmanager
def _told_to_end(repository: Path) -> Iterator[_Draining]:
    """Fills a server, sends it SIGTERM and asks what it says then."""
    with (
        Server(ServeOptions(repository)) as server,
        Client(server.grpc_url) as client,
        MetricsPoll(server.metrics_url) as poll,
    ):
        reference, pids = draw(client, SLOW_CLIP), processes_of_triton(server)
        with filled(client, poll) as futures:
            trial = _Draining(server, pids, futures, reference)
            trial.send_sigterm()
            trial.told = _told(server, client)
            trial.unfinished = sum(not future.done() for future in futures)
            yield trial


def _drain(repository: Path) -> Fault:
    with _told_to_end(repository) as trial:
        seen = trial.outcomes()
        status, took_s = trial.wait()
    clips, unfinished, told = len(trial.futures), trial.unfinished, trial.told
    return Fault(
        "SIGTERM with a clip in every place",
        f"every one of the {clips} clips is drawn to its end; meanwhile {NOT_READY}; then "
        "the server ends with status 0",
        f"{counted(seen)}; meanwhile, with {unfinished} in flight, {told}; status {status} after "
        f"{took_s:.1f} s",
        None,
        seen[NOTHING],
        seen == Counter({CLIP_OUTCOME: clips})
        and unfinished > 0
        and told == NOT_READY
        and status == 0,
    )


def _end_at_once(repository: Path) -> Fault:
    with _told_to_end(repository) as trial:
        trial.send_sigterm()
        status, took_s = trial.wait()
        gone_s = seconds_until_gone(trial.pids)
        seen = trial.outcomes()
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
