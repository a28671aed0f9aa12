"""Servers that share `/dev/shm`."""

from __future__ import annotations

import os
import signal
from pathlib import Path

from reelserve.client import Client
from reelserve.server.launch.running_server import Server
from reelserve.server.launch.tritons import ServeOptions
from reelserve.tools.faults.deaths import leftovers, processes_of_triton, seconds_until_gone
from reelserve.tools.faults.fault import Fault, Trial, all_among, counted
from reelserve.tools.faults.load import CLIP_OUTCOME, NOTHING, draw, outcomes, under_load


def neighbours() -> list[Trial]:
    """A server beside one that dies and one that starts."""
    return [Trial("two-servers", _two_servers)]


def _two_servers(repository: Path) -> Fault:
    options = ServeOptions(repository)
    with (
        Server(options) as server,
        Client(server.grpc_url) as client,
        Server(options) as other,
        Client(other.grpc_url) as other_client,
    ):
        reference, prefix = draw(client), other.running.region_prefix
        same = draw(other_client) == reference
        pids = processes_of_triton(other)
        with under_load(client) as futures:
            os.kill(other.pid, signal.SIGKILL)
            seconds_until_gone(pids)
            # Its start clears what the dead one has left, and must leave the living one alone.
            with Server(options) as third, Client(third.grpc_url) as third_client:
                same = same and draw(third_client) == draw(client) == reference
                left = len(leftovers(prefix))
            seen = outcomes(futures, reference)
        same = same and draw(client) == reference
    return Fault(
        "two servers on one /dev/shm, of which one dies by kill -9 and a third one starts",
        "all draw the same clip; the other one notices nothing; nothing of the dead one is left",
        f"{counted(seen)}; all clips {'' if same else 'not '}the same; {left} files left",
        None,
        seen[NOTHING],
        all_among(seen, (CLIP_OUTCOME,)) and same and not left,
    )
