"""Links that fall silent, and callers that ping through the silence."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import grpc
from tritonclient.grpc import service_pb2, service_pb2_grpc

from reelserve.client import Client
from reelserve.client._channel import channel_arguments
from reelserve.server.launch.running_server import Server
from reelserve.server.launch.tritons import ServeOptions
from reelserve.tools.faults.fault import Fault, Trial, all_among, counted, recovers
from reelserve.tools.faults.load import LARGE_CLIP, NOTHING, draw, outcomes, recovery, under_load
from reelserve.tools.faults.relay import relay

SILENT_S = 180.0
PING_S = 10
"""The interval that many callers choose; gRPC's own servers end such a connection."""
STATUS_TIMEOUT_S = 10.0
LOST = "NoServerError"


def links(silent_s: float) -> list[Trial]:
    """A link that falls silent, beside a caller that pings.

    Args:
        silent_s: Seconds in which that caller sends nothing but its pings.
    """
    return [Trial("links", partial(_links, silent_s=silent_s))]


def _links(repository: Path, silent_s: float) -> Fault:
    with (
        Server(ServeOptions(repository)) as server,
        relay(server.grpc_url) as link,
        Client(link.url) as client,
        pinging(server.grpc_url) as states,
    ):
        silent_until = time.monotonic() + silent_s
        reference = draw(client)
        with under_load(client, clip=LARGE_CLIP) as futures:
            link.silence()
            cut = time.monotonic()
            seen = outcomes(futures, reference)
            noticed_s = time.monotonic() - cut
        recovered_s = recovery(client, time.monotonic(), reference)
        time.sleep(max(0.0, silent_until - time.monotonic()))
        kept = set(states) == {grpc.ChannelConnectivity.READY}
    return Fault(
        f"a link that falls silent, and a caller that sends nothing but pings for {silent_s:g} s",
        "every request on that link fails with NoServerError, and the next one gets its clip; "
        f"the connection that pings every {PING_S} s is kept",
        f"{counted(seen)} within {noticed_s:.1f} s; the connection that pings is "
        f"{'' if kept else 'not '}kept",
        recovered_s,
        seen[NOTHING],
        all_among(seen, (LOST,)) and recovers(recovered_s) and kept,
    )


@contextlib.contextmanager
def pinging(url: str) -> Iterator[list[grpc.ChannelConnectivity]]:
    """A connection with keepalive pings and without calls; gives its states since it was ready."""
    options = [
        *channel_arguments(url),
        ("grpc.keepalive_time_ms", 1000 * PING_S),
        ("grpc.keepalive_permit_without_calls", 1),
        # gRPC stops its own pings otherwise, after two that no data followed.
        ("grpc.http2.max_pings_without_data", 0),
    ]
    states: list[grpc.ChannelConnectivity] = []
    with grpc.insecure_channel(url, options=options) as channel:
        stub = service_pb2_grpc.GRPCInferenceServiceStub(channel)
        stub.ServerLive(service_pb2.ServerLiveRequest(), timeout=STATUS_TIMEOUT_S)
        channel.subscribe(states.append)
        yield states
        channel.unsubscribe(states.append)
