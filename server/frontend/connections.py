"""How connections to the public gRPC port are bounded and kept."""

from __future__ import annotations

import resource
from dataclasses import dataclass

from reelserve.pipeline.checkpoint import RequestLimits
from reelserve.server.frontend.upstream import UNLIMITED

MOST_BYTES_PER_CHARACTER = 4
"""Longest code of a character in UTF-8."""
REQUEST_OVERHEAD_BYTES = 64 * 1024
"""Room for what a message holds beside its two prompts: names, shapes, an id, parameters."""
KEEPALIVE_S = 20.0
"""Usual interval of keepalive pings to a silent caller; without them a link that was cut is never
noticed."""
KEEPALIVE_TIMEOUT_MS = 10_000
"""How long a caller's machine may take to confirm that a ping came."""
PING_TIMEOUT_MS = 60_000
"""How long the caller itself may take to answer one. On a slow line a ping waits behind a clip."""
LEAST_PING_INTERVAL_MS = 500
"""Shortest interval at which a caller may send keepalive pings, with calls in flight or without:
half of the shortest at which a gRPC client sends them. gRPC's own is five minutes, and two hours
without calls."""
HANDSHAKE_TIMEOUT_MS = 10_000
"""How long a connection may take until it speaks HTTP/2."""
MAX_CONNECTIONS = 4096
"""Most gRPC connections at once; fewer where the process may open few files."""


@dataclass(frozen=True)
class Connections:
    """What may be chosen of connections.

    Args:
        keepalive_s: Interval of pings to a silent caller.
        max_age_s: Age at which a connection is ended, give or take a tenth: calls go on, and the
            caller makes the next one on a new connection. None for no end.
    """

    keepalive_s: float = KEEPALIVE_S
    max_age_s: float | None = None

    def options(self, limits: RequestLimits) -> list[tuple[str, int]]:
        """Options of the gRPC server for requests within these limits."""
        prompts = 2 * limits.max_prompt_characters * MOST_BYTES_PER_CHARACTER
        age = self.max_age_s
        return [
            ("grpc.max_receive_message_length", prompts + REQUEST_OVERHEAD_BYTES),
            ("grpc.max_send_message_length", UNLIMITED),
            # Two servers on one port would each get some of the calls.
            ("grpc.so_reuseport", 0),
            ("grpc.max_allowed_incoming_connections", max_connections()),
            ("grpc.server_handshake_timeout_ms", HANDSHAKE_TIMEOUT_MS),
            ("grpc.keepalive_time_ms", round(self.keepalive_s * 1000)),
            ("grpc.keepalive_timeout_ms", KEEPALIVE_TIMEOUT_MS),
            ("grpc.http2.ping_timeout_ms", PING_TIMEOUT_MS),
            ("grpc.keepalive_permit_without_calls", 1),
            ("grpc.http2.min_ping_interval_without_data_ms", LEAST_PING_INTERVAL_MS),
            *([] if age is None else [("grpc.max_connection_age_ms", round(age * 1000))]),
        ]


def max_connections() -> int:
    """Connections to the gRPC port that leave half of the files that may be open to the rest.

    Without a free one nothing is accepted any more, and clips, metrics and log need files, too.
    """
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return MAX_CONNECTIONS if soft < 0 else max(1, min(MAX_CONNECTIONS, soft // 2))
