"""The front end's ports: gRPC for callers, HTTP for probes and metrics."""

from __future__ import annotations

import asyncio
import os
import time
from dataclasses import dataclass
from errno import EADDRINUSE

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_health.v1.health import aio as health_aio
from grpc_reflection.v1alpha import reflection

from reelserve.server.frontend import probes
from reelserve.server.frontend.connections import Connections
from reelserve.server.frontend.doors import Doorkeeper, Doors
from reelserve.server.frontend.handlers import InferenceHandlers
from reelserve.server.frontend.metrics import exposition
from reelserve.server.frontend.ports import address, listening_address, port_error
from reelserve.server.frontend.service import Service
from reelserve.server.frontend.upstream import SERVICE
from reelserve.server.metric_table import REFUSALS

STUCK_AFTER_S = 10.0
"""Time without a beat after which the event loop counts as stuck."""
STOP_GRACE_S = 5.0
"""How long answers that are being written may take at the end."""


@dataclass
class Ports:
    """Where the front end listens; 0 takes a free port.

    Args:
        host: Address.
        grpc: TCP port.
        http: TCP port.
        metrics: TCP port.
    """

    host: str
    grpc: int
    http: int
    metrics: int


class FrontEnd:
    """The public ports of a service.

    Args:
        service: The clips.
        ports: Where to listen.
        doors: Who may call.
        connections: How connections of callers are kept.
    """

    def __init__(
        self, service: Service, ports: Ports, doors: Doors, connections: Connections
    ) -> None:
        self._service, self.ports = (
            service,
            Ports(ports.host, ports.grpc, ports.http, ports.metrics),
        )
        self._doors = doors
        # gRPC does not keep them alive itself.
        self._credentials = None if doors.tls is None else doors.tls.credentials()
        self._looking: asyncio.Task[None] | None = None
        self._beat = time.monotonic()
        self._health = health_aio.HealthServicer()
        self._server = grpc.aio.server(
            interceptors=(Doorkeeper(doors, self._refused_at_door),),
            options=connections.options(service.limits),
        )
        self._server.add_generic_rpc_handlers((InferenceHandlers(service, doors),))
        health_pb2_grpc.add_HealthServicer_to_server(self._health, self._server)
        names = (SERVICE, health_pb2.DESCRIPTOR.services_by_name["Health"].full_name)
        reflection.enable_server_reflection((*names, reflection.SERVICE_NAME), self._server)
        self._probes: list[probes.ProbeServer] = []

    async def start(self) -> None:
        """Listens; answers that it is not ready until a Triton is.

        Raises:
            PortError: If a port cannot be had.
            DoorError: If strangers could call, and that is not wanted.
        """
        ports = self.ports
        ports.host = listening_address(ports.host, ports.grpc)
        self._doors.check_address(ports.host)
        try:
            ports.grpc = self._listen_for_calls(address(ports.host, ports.grpc))
        except RuntimeError:
            # Taken since.
            raise port_error(
                ports.host, ports.grpc, OSError(EADDRINUSE, os.strerror(EADDRINUSE))
            ) from None
        await self._server.start()
        elsewhere = (
            f"not here: clips are drawn by gRPC on port {ports.grpc}, health is told on "
            "/v2/health/live and /v2/health/ready, metrics on /metrics of the metrics port"
        )
        health = {
            "/v2/health/live": lambda: probes.health(self.lives),
            "/v2/health/ready": lambda: probes.health(self.lives and self._service.ready),
        }
        pages = {"/metrics": lambda: probes.metrics(self._metrics())}
        ports.http = self._listen(ports.http, health, elsewhere)
        ports.metrics = self._listen(ports.metrics, pages, elsewhere)
        self._looking = asyncio.create_task(self._doors.keep_looking())
        await self.beat()

    @property
    def lives(self) -> bool:
        """Whether the event loop runs."""
        return time.monotonic() - self._beat < STUCK_AFTER_S

    async def beat(self) -> None:
        """Shows that the event loop runs, and tells health as it is; to be called all the time."""
        self._beat = time.monotonic()
        state = health_pb2.HealthCheckResponse
        self._service.requests.tell_left_out()
        status = state.SERVING if self._service.ready else state.NOT_SERVING
        for name in ("", SERVICE):
            await self._health.set(name, status)

    async def close(self) -> None:
        """Stops listening; answers that are being written are given a moment."""
        if self._looking is not None:
            self._looking.cancel()
        await self._server.stop(STOP_GRACE_S)
        for probe in self._probes:
            probe.close()
        self._service.requests.tell_left_out(all_of_them=True)

    def _refused_at_door(self) -> None:
        self._service.recorder.count(REFUSALS, reason="key")
        self._service.requests.refused_at_door()

    def _listen_for_calls(self, where: str) -> int:
        if self._credentials is None:
            return int(self._server.add_insecure_port(where))
        return int(self._server.add_secure_port(where, self._credentials))

    def _listen(self, port: int, pages: dict, elsewhere: str) -> int:  # type: ignore[type-arg]
        host = self.ports.host
        try:
            probe = probes.ProbeServer(host, port, pages, elsewhere)
        except OSError as error:
            raise port_error(host, port, error) from None
        self._probes.append(probe)
        return probe.port

    def _metrics(self) -> bytes:
        sockets = {
            one.load.name: one.metrics_socket if one.load.ready else None
            for one in self._service.upstreams
        }
        return exposition(self._service.recorder.registry, sockets)
