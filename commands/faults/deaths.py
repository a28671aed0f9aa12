"""Kills what a server is made of, and ends it, with requests in flight."""

from __future__ import annotations

import os
import signal
import time
from functools import partial
from pathlib import Path

from reelserve.client import Client
from reelserve.commands.faults.fault import Fault, Trial, all_among, counted, recovers
from reelserve.commands.faults.load import (
    CLIP_OUTCOME,
    NOTHING,
    draw,
    end_of,
    outcomes,
    recovery,
    under_load,
)
from reelserve.pipeline import contract
from reelserve.server.launcher import Server
from reelserve.server.serving import ServeOptions
from reelserve.server.stage_processes import stage_processes
from reelserve.server.triton_process import KILL_AFTER_S

SERVER_GONE = ("InternalError", "NoServerError", "UnavailableError", "CancelledError")
"""What a request may get from a server that ends, beside its clip."""


def deaths() -> list[Trial]:
    """Every process of the server, and SIGTERM."""
    kills = [Trial(f"kill-{stage}", partial(_kill_stage, stage=stage)) for stage in contract.STAGES]
    return [*kills, Trial("kill-server", _kill_server), Trial("sigterm", _terminate)]


def _kill_stage(repository: Path, stage: str) -> Fault:
    with Server(ServeOptions(repository)) as server, Client(server.grpc_url) as client:
        reference = draw(client)
        with under_load(client) as futures:
            os.kill(stage_processes(server.pid)[stage], signal.SIGKILL)
            broken = time.monotonic()
            ending = end_of(server)
            seen = outcomes(futures, reference)
    recovered_s = _started_again(repository, broken, reference)
    return Fault(
        f"kill -9 of {stage}",
        "every request gets its clip or an error; the launcher names the stage and ends, since "
        "Triton does not start it again; started again by a supervisor, the server answers "
        "within 10 s of the kill",
        f"{counted(seen)}; {ending}",
        recovered_s,
        seen[NOTHING],
        all_among(seen, (CLIP_OUTCOME, *SERVER_GONE)) and stage in ending and recovers(recovered_s),
    )


def _kill_server(repository: Path) -> Fault:
    with Server(ServeOptions(repository)) as server, Client(server.grpc_url) as client:
        reference = draw(client)
        with under_load(client) as futures:
            os.kill(server.pid, signal.SIGKILL)
            broken = time.monotonic()
            ending = end_of(server)
            seen = outcomes(futures, reference)
    recovered_s = _started_again(repository, broken, reference)
    return Fault(
        "kill -9 of tritonserver",
        "every request fails at once with NoServerError; the launcher ends; started again by a "
        "supervisor, the server answers within 10 s of the kill",
        f"{counted(seen)}; {ending}",
        recovered_s,
        seen[NOTHING],
        all_among(seen, ("NoServerError",)) and recovers(recovered_s),
    )


def _terminate(repository: Path) -> Fault:
    with Server(ServeOptions(repository)) as server, Client(server.grpc_url) as client:
        reference = draw(client)
        with under_load(client) as futures:
            started = time.monotonic()
            os.kill(server.pid, signal.SIGTERM)
            ending = end_of(server)
            took_s = time.monotonic() - started
            seen = outcomes(futures, reference)
    return Fault(
        "SIGTERM under load",
        f"every request gets its clip or an error, and the server ends within {KILL_AFTER_S} s",
        f"{counted(seen)}; {ending} after {took_s:.1f} s",
        None,
        seen[NOTHING],
        all_among(seen, (CLIP_OUTCOME, *SERVER_GONE)) and took_s <= KILL_AFTER_S,
    )


def _started_again(repository: Path, since: float, reference: bytes) -> float | None:
    with Server(ServeOptions(repository)) as server, Client(server.grpc_url) as client:
        return recovery(client, since, reference)
