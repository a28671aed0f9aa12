"""Runs a service: the Tritons, the front end before them, and their end."""

from __future__ import annotations

import asyncio
import contextlib
import json
import signal
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from reelserve.runtimes.export_lock import ExportLock
from reelserve.server.frontend.connections import Connections
from reelserve.server.frontend.doors import Doors
from reelserve.server.frontend.frontend import FrontEnd, Ports
from reelserve.server.frontend.ports import address
from reelserve.server.frontend.request_log import RequestLog
from reelserve.server.frontend.service import Service, ServiceSettings
from reelserve.server.frontend.upstream import Upstream
from reelserve.server.launch import service_manager
from reelserve.server.launch.door_options import doors_of
from reelserve.server.launch.log_options import tracing_of
from reelserve.server.launch.orphans import keep_reaping
from reelserve.server.launch.repository_check import check_repository
from reelserve.server.launch.repository_config import model_config, parameters_of
from reelserve.server.launch.run_folder import (
    SHARED_MEMORY,
    clear_leftovers,
    region_prefix,
    run_parent,
    start_folder,
)
from reelserve.server.launch.server_log import ServerLog
from reelserve.server.launch.shared_memory import Needed, check_shared_memory, shared_memory_need
from reelserve.server.launch.supervisor import WATCH_S, Supervisor
from reelserve.server.launch.triton_process import TritonProcess
from reelserve.server.launch.tritons import ServeOptions, tritons_of
from reelserve.server.progress import ProgressFolder

AT_ONCE_S = 3.0
"""How long Triton may take to end where clips in flight are given up."""
STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)


@dataclass(frozen=True)
class Running:
    """What is told once a service is ready.

    Args:
        ready_s: Seconds of the start.
        host: Address that it listens on.
        grpc_port: TCP port.
        http_port: TCP port.
        metrics_port: TCP port.
        region_prefix: Beginning of the names of the shared-memory regions.
    """

    ready_s: float
    host: str
    grpc_port: int
    http_port: int
    metrics_port: int
    region_prefix: str

    @classmethod
    def of(cls, ports: Ports, ready_s: float, region_prefix: str) -> Running:
        """Describes a front end that listens."""
        return cls(ready_s, ports.host, ports.grpc, ports.http, ports.metrics, region_prefix)

    def described(self) -> str:
        """In one line."""
        grpc, http = address(self.host, self.grpc_port), address(self.host, self.http_port)
        metrics = address(self.host, self.metrics_port)
        return (
            f"ready after {self.ready_s:.1f} s: gRPC {grpc}, health http://{http}/v2/health/ready, "
            f"metrics http://{metrics}/metrics; Ctrl-C ends it"
        )


async def serve(options: ServeOptions, ready: Callable[[Running], None], log: ServerLog) -> None:
    """Serves until SIGTERM, SIGINT or SIGHUP; clips in flight are drawn to their end.

    A second signal ends at once.

    Args:
        options: How.
        ready: Told when requests are accepted.
        log: Where everything is told.

    Raises:
        RepositoryError: If the repository cannot be served.
        ServerError: If Triton does not start, or dies again and again.
        PortError: If a port cannot be had.
        DoorError: If keys or certificates cannot be used, or strangers could call unwanted.
        InstallationError: If there is no usable Triton server.
        TracingError: If no traces can be made.
    """
    started, signals = time.monotonic(), _Signals()
    doors = doors_of(options)
    lock = check_repository(options.model_repository, verify=options.verify)
    # What a killed server has left is not in use, and would keep the next one from starting.
    clear_leftovers(SHARED_MEMORY)
    check_shared_memory(needed_by(options, lock.config_name), SHARED_MEMORY)
    async with contextlib.AsyncExitStack() as stack:
        shared = stack.enter_context(start_folder(SHARED_MEMORY, options.single_user))
        run_dir = stack.enter_context(start_folder(run_parent(), options.single_user))
        if options.log_file is None:
            log.open(run_dir / "triton.log")
        tritons = tritons_of(options, lock, run_dir, shared, log)
        service, front_end, supervisors = _parts(
            options, doors, lock, tritons, ProgressFolder(shared)
        )
        if (tracing := tracing_of(options, service)) is not None:
            stack.push_async_callback(asyncio.to_thread, tracing.close)
        stack.push_async_callback(front_end.close)
        await front_end.start()
        # Until the end: who asks is told that the service drains.
        stack.callback(asyncio.create_task(_beat(front_end)).cancel)
        reaping = keep_reaping(lambda: {one.pid for one in supervisors})
        stack.callback(asyncio.create_task(reaping).cancel)
        stack.push_async_callback(_stop, supervisors, signals)
        if not await signals.unless_sent(asyncio.gather(*(one.start() for one in supervisors))):
            return
        await front_end.beat()
        ready(Running.of(front_end.ports, time.monotonic() - started, region_prefix(shared)))
        service_manager.tell(service_manager.READY)
        if not await signals.unless_sent(
            asyncio.gather(*(one.keep_running() for one in supervisors))
        ):
            await _drain(service, front_end, supervisors, signals, options.drain_timeout_s)


def _parts(
    options: ServeOptions,
    doors: Doors,
    lock: ExportLock,
    tritons: Mapping[str, TritonProcess],
    progress: ProgressFolder,
) -> tuple[Service, FrontEnd, list[Supervisor]]:
    """The service, its ports and who looks after each Triton; nothing runs yet."""
    upstreams = [
        Upstream(name, triton.options.secret, triton.options.metrics_socket, triton.lost)
        for name, triton in tritons.items()
    ]
    service = Service(
        options.model_repository / "prompt_processor" / "1",
        service_settings(options.model_repository, lock.config_name),
        upstreams,
        progress,
        RequestLog(prompts=options.log_prompts),
    )
    ports = Ports(options.host, options.grpc_port, options.http_port, options.metrics_port)
    supervisors = [
        Supervisor(triton, upstream, service, options.hang_timeout_s)
        for triton, upstream in zip(tritons.values(), upstreams, strict=True)
    ]
    connections = Connections(options.keepalive_s, options.max_connection_age_s)
    return service, FrontEnd(service, ports, doors, connections), supervisors


async def _drain(
    service: Service,
    front_end: FrontEnd,
    supervisors: Sequence[Supervisor],
    signals: _Signals,
    timeout_s: float,
) -> None:
    """Draws what is in flight to its end; a second signal, or the time, ends it before."""
    service.draining = True
    service_manager.tell(service_manager.STOPPING)
    await front_end.beat()
    draining = asyncio.ensure_future(service.drain(timeout_s))
    if not await signals.unless_sent(draining) or not draining.result():
        service.fail_all()
        await asyncio.gather(*(one.stop(kill_after_s=AT_ONCE_S) for one in supervisors))


async def _stop(supervisors: Sequence[Supervisor], signals: _Signals) -> None:
    """Ends every Triton; a signal meanwhile kills them.

    None has a clip any more, and each takes seconds to unload its models.
    """
    if not await signals.unless_sent(asyncio.gather(*(one.stop() for one in supervisors))):
        await asyncio.gather(*(one.stop(kill_after_s=0) for one in supervisors))


class _Signals:
    """Counts the signals that ask for the end."""

    def __init__(self) -> None:
        self._sent = asyncio.Event()
        for number in STOP_SIGNALS:
            # `nohup` lets a server go on without its terminal.
            if number != signal.SIGHUP or signal.getsignal(number) != signal.SIG_IGN:
                asyncio.get_running_loop().add_signal_handler(number, self._sent.set)

    async def unless_sent(self, work: asyncio.Future[Any]) -> bool:
        """Waits for some work; False if a signal came first. The work is cancelled then."""
        signalled = asyncio.ensure_future(self._sent.wait())
        try:
            await asyncio.wait({work, signalled}, return_when=asyncio.FIRST_COMPLETED)
            if work.done():
                await work
                return True
            work.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await work
            self._sent.clear()
            return False
        finally:
            signalled.cancel()


async def _beat(front_end: FrontEnd) -> None:
    while True:
        await front_end.beat()
        await asyncio.sleep(WATCH_S)


def needed_by(options: ServeOptions, config_name: str) -> Needed:
    """What a service with these options needs of `/dev/shm`."""
    return shared_memory_need(
        options.model_repository,
        config_name,
        native=options.tritonserver is not None,
        tritons=max(1, len(options.gpus)),
    )


def service_settings(repository: Path, config_name: str) -> ServiceSettings:
    """What the configs of a repository say of the service."""
    public = parameters_of(model_config(repository, "text_to_video", config_name))
    diffusion = parameters_of(model_config(repository, "video_diffusion", config_name))
    return ServiceSettings(
        max_requests_in_flight=public.integer("max_requests_in_flight", 1),
        max_active_requests=diffusion.integer("max_active_requests", 1),
        share_answers_s=public.integer("share_answers_seconds", 0),
    )


def announced(running: Running) -> str:
    """The line that `--ready-fd` gets: JSON."""
    return json.dumps(asdict(running))
