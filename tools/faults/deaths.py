"""Kills or stops what a server is made of, with requests in flight."""

from __future__ import annotations

import os
import signal
import time
from collections import Counter
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

from reelserve.client import Client
from reelserve.pipeline import contract
from reelserve.server.launch.run_folder import PREFIX, REGION_PREFIX, SHARED_MEMORY
from reelserve.server.launch.running_server import Server
from reelserve.server.launch.stage_processes import has_ended, stage_processes
from reelserve.server.launch.tritons import ServeOptions
from reelserve.tools.faults.fault import Fault, Trial, all_among, counted, recovers
from reelserve.tools.faults.load import (
    CLIP_OUTCOME,
    NOTHING,
    POLL_S,
    REFUSED,
    draw,
    outcomes,
    recovery,
    under_load,
)

HANG_S = 3.0
"""After so long a stopped stage counts as hung, in the trials that stop one."""
MAX_GONE_S = 2.0
"""Triton dies with the front end."""
GONE_TIMEOUT_S = 30.0


def deaths() -> list[Trial]:
    """Every process of the server."""
    return [
        *(Trial(f"kill-{stage}", partial(_kill_stage, stage=stage)) for stage in contract.STAGES),
        Trial("kill-triton", _kill_triton),
        Trial("hang", _stop_stage),
        Trial("kill-server", _kill_server),
        Trial("restart", _kill_everything),
    ]


def _kill_stage(repository: Path, stage: str) -> Fault:
    return _break(
        f"kill -9 of {stage}",
        ServeOptions(repository),
        lambda server: os.kill(stage_processes(server.triton_pid)[stage], signal.SIGKILL),
    )


def _kill_triton(repository: Path) -> Fault:
    return _break(
        "kill -9 of tritonserver",
        ServeOptions(repository),
        lambda server: os.kill(server.triton_pid, signal.SIGKILL),
    )


def _stop_stage(repository: Path) -> Fault:
    return _break(
        f"SIGSTOP of upsampler, which counts as hung after {HANG_S:g} s",
        ServeOptions(repository, hang_timeout_s=HANG_S),
        lambda server: os.kill(stage_processes(server.triton_pid)["upsampler"], signal.SIGSTOP),
        noticed_s=HANG_S,
    )


def _break(
    fault: str, options: ServeOptions, break_it: Callable[[Server], None], noticed_s: float = 0.0
) -> Fault:
    """Breaks a part of Triton under load; the front end must outlive it.

    Args:
        fault: What is broken.
        options: How to run the server.
        break_it: Breaks it.
        noticed_s: Seconds until it counts as broken.
    """
    with Server(options) as server, Client(server.grpc_url) as client:
        reference, before = draw(client), server.triton_pid
        with under_load(client) as futures:
            break_it(server)
            broken = time.monotonic() + noticed_s
            seen = outcomes(futures, reference)
        meanwhile: Counter[str] = Counter()
        recovered_s = recovery(client, broken, reference, meanwhile)
        again = server.triton_pid not in (before, 0)
    return Fault(
        fault,
        "every request in flight gets its clip or UnavailableError with a hint, and so do new "
        "ones; Triton is started again, and the same server answers within 10 s",
        f"{counted(seen)}; meanwhile {counted(meanwhile) or 'no request'}; "
        f"Triton was {'' if again else 'not '}started again",
        recovered_s,
        seen[NOTHING],
        all_among(seen, (CLIP_OUTCOME, REFUSED))
        and not set(meanwhile) - {REFUSED}
        and again
        and recovers(recovered_s),
    )


def _kill_server(repository: Path) -> Fault:
    return _start_anew(
        repository, "kill -9 of the front end", lambda server: os.kill(server.pid, signal.SIGKILL)
    )


def _kill_everything(repository: Path) -> Fault:
    """As the end of a container whose `/dev/shm` is kept."""

    def kill(server: Server) -> None:
        for pid in (server.pid, *processes_of_triton(server)):
            os.kill(pid, signal.SIGKILL)

    return _start_anew(repository, "kill -9 of every process at once, /dev/shm kept", kill)


def _start_anew(repository: Path, fault: str, kill: Callable[[Server], None]) -> Fault:
    with Server(ServeOptions(repository)) as server, Client(server.grpc_url) as client:
        reference = draw(client)
        pids, prefix = processes_of_triton(server), server.running.region_prefix
        with under_load(client) as futures:
            kill(server)
            broken = time.monotonic()
            gone_s = seconds_until_gone(pids)
            seen = outcomes(futures, reference)
            left = len(leftovers(prefix))
    with Server(ServeOptions(repository)) as server, Client(server.grpc_url) as client:
        recovered_s = recovery(client, broken, reference)
        still_left = len(leftovers(prefix))
    return Fault(
        fault,
        "every request that has not got its clip fails at once with NoServerError; Triton and its "
        "stages are gone within "
        f"{MAX_GONE_S:g} s; a new server answers within 10 s of the kill and clears /dev/shm",
        f"{counted(seen)}; all gone after {gone_s:.2f} s; files in /dev/shm: {left} left, "
        f"{still_left} after the new start",
        recovered_s,
        seen[NOTHING],
        all_among(seen, (CLIP_OUTCOME, "NoServerError"))
        and gone_s <= MAX_GONE_S
        and not still_left
        and recovers(recovered_s),
    )


def processes_of_triton(server: Server) -> list[int]:
    """Process ids of the first Triton and of its stages."""
    return [server.triton_pid, *stage_processes(server.triton_pid).values()]


def seconds_until_gone(pids: Sequence[int]) -> float:
    """Seconds until none of these processes lives; infinite if one goes on for long."""
    since = time.monotonic()
    while not all(map(has_ended, pids)):
        if time.monotonic() - since > GONE_TIMEOUT_S:
            return float("inf")
        time.sleep(POLL_S / 10)
    return time.monotonic() - since


def leftovers(region_prefix: str) -> list[Path]:
    """What lies in `/dev/shm` of the start whose regions' names begin so."""
    token = region_prefix.removeprefix(REGION_PREFIX).rstrip("_")
    return [*SHARED_MEMORY.glob(f"{region_prefix}*"), *SHARED_MEMORY.glob(f"{PREFIX}{token}")]
