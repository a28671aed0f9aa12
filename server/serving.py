"""Runs a service: the Tritons, the front end before them, and their end."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import os
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from google.protobuf import text_format
from tritonclient.grpc import model_config_pb2

from reelserve.pipeline.export_lock import ExportLock
from reelserve.server.allocator import allocator_environment
from reelserve.server.frontend.frontend import FrontEnd, Ports, address
from reelserve.server.frontend.service import Service, ServiceSettings
from reelserve.server.frontend.upstream import Secret, Upstream
from reelserve.server.installation import native_installation, pip_installation
from reelserve.server.parameters import Parameters
from reelserve.server.progress import VARIABLE, ProgressFolder
from reelserve.server.repository import RepositoryError, check_repository, is_for_gpu
from reelserve.server.run_folder import SHARED_MEMORY, region_prefix, run_parent, start_folder
from reelserve.server.supervisor import WATCH_S, Supervisor
from reelserve.server.triton_process import ServerError, TritonOptions, TritonProcess

MIN_SHARED_MEMORY_BYTES = 256 * 2**20
"""Clips of 80 frames of 256×256 were seen to take 50 MB and of 240 frames 150 MB; regions are
reused and never shrink."""
AT_ONCE_S = 3.0
"""For Triton to end where nothing is waited for."""
STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class ServeOptions:
    """How to run a service.

    Args:
        model_repository: Folder with one folder a model.
        host: Address to listen on.
        grpc_port: TCP port; 0 takes a free one. So for the next two.
        http_port: Of the probes.
        metrics_port: Of the metrics.
        gpus: One Triton for each, by the names that CUDA has for them; empty: one Triton.
        tritonserver: NVIDIA's own binary; None uses the pip-installed one.
        log_file: Where Triton's log goes; None keeps it until the end.
        ready_timeout_s: Bound on the start.
        drain_timeout_s: How long clips in flight may go on after SIGTERM.
        hang_timeout_s: How long a process may be stopped, or Triton silent.
        verify: Whether every exported file is read and compared with the hash of its export.
        extra_arguments: Passed to `tritonserver` as they are, last.
    """

    model_repository: Path
    host: str = "127.0.0.1"
    grpc_port: int = 0
    http_port: int = 0
    metrics_port: int = 0
    gpus: tuple[str, ...] = ()
    tritonserver: Path | None = None
    log_file: Path | None = None
    ready_timeout_s: float = 120.0
    drain_timeout_s: float = 300.0
    hang_timeout_s: float = 30.0
    verify: bool = False
    extra_arguments: tuple[str, ...] = ()


@dataclass(frozen=True)
class Running:
    """What is told once a service is ready.

    Args:
        ready_s: Seconds of the start.
        host: Address that it listens on.
        grpc_port: TCP port.
        http_port: TCP port.
        metrics_port: TCP port.
        tritons: Process ids of the Tritons.
        region_prefix: Of the names of the shared-memory regions.
    """

    ready_s: float
    host: str
    grpc_port: int
    http_port: int
    metrics_port: int
    tritons: tuple[int, ...]
    region_prefix: str

    def described(self) -> str:
        """In one line."""
        grpc, http = address(self.host, self.grpc_port), address(self.host, self.http_port)
        metrics = address(self.host, self.metrics_port)
        return (
            f"ready after {self.ready_s:.1f} s: gRPC {grpc}, health http://{http}/v2/health/ready, "
            f"metrics http://{metrics}/metrics; Ctrl-C ends it"
        )


async def serve(options: ServeOptions, ready: Callable[[Running], None]) -> None:
    """Serves until SIGTERM, SIGINT or SIGHUP; clips in flight are drawn to their end.

    A second signal ends at once.

    Args:
        options: How.
        ready: Told when requests are accepted.

    Raises:
        ServerError: If Triton does not start, or dies again and again.
        PortError: If a port cannot be had.
        InstallationError: If there is no usable Triton server.
    """
    started = time.monotonic()
    signals = _Signals()
    lock = _checked_lock(options)
    check_shared_memory()
    async with contextlib.AsyncExitStack() as stack:
        shared = stack.enter_context(start_folder(SHARED_MEMORY))
        run_dir = stack.enter_context(start_folder(run_parent()))
        secret = Secret()
        tritons = _tritons(options, lock, run_dir, shared, secret)
        upstreams = [Upstream(name, secret, triton.lost) for name, triton in tritons.items()]
        service = Service(
            options.model_repository / "prompt_processor" / "1",
            service_settings(options.model_repository, lock.config_name),
            upstreams,
            ProgressFolder(shared),
        )
        ports = Ports(options.host, options.grpc_port, options.http_port, options.metrics_port)
        front_end = FrontEnd(service, ports)
        supervisors = [
            Supervisor(triton, upstream, service, options.hang_timeout_s)
            for triton, upstream in zip(tritons.values(), upstreams, strict=True)
        ]
        stack.push_async_callback(front_end.close)
        await front_end.start()
        # Until the end: who asks is told that the service drains.
        stack.callback(asyncio.create_task(_beat(front_end)).cancel)
        for supervisor in supervisors:
            stack.push_async_callback(supervisor.stop)
        if not await signals.unless_sent(asyncio.gather(*(one.start() for one in supervisors))):
            return
        await front_end.beat()
        ports, pids = front_end.ports, tuple(triton.pid for triton in tritons.values())
        took_s, prefix = time.monotonic() - started, region_prefix(shared)
        ready(Running(took_s, ports.host, ports.grpc, ports.http, ports.metrics, pids, prefix))
        keeping = asyncio.gather(*(_keep(one, upstreams) for one in supervisors))
        stack.callback(keeping.cancel)
        if await signals.unless_sent(keeping):
            return
        service.draining = True
        await front_end.beat()
        draining = asyncio.ensure_future(service.drain(options.drain_timeout_s))
        if not await signals.unless_sent(draining) or not draining.result():
            service.fail_all()
            await asyncio.gather(*(one.stop(kill_after_s=AT_ONCE_S) for one in supervisors))


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


async def _keep(supervisor: Supervisor, upstreams: Sequence[Upstream]) -> None:
    await supervisor.keep_running(lambda: any(upstream.line.ready for upstream in upstreams))


async def _beat(front_end: FrontEnd) -> None:
    while True:
        await front_end.beat()
        await asyncio.sleep(WATCH_S)


def _checked_lock(options: ServeOptions) -> ExportLock:
    try:
        return check_repository(options.model_repository, verify=options.verify)
    except RepositoryError as error:
        raise ServerError(str(error)) from None


def _tritons(
    options: ServeOptions, lock: ExportLock, run_dir: Path, shared: Path, secret: Secret
) -> dict[str, TritonProcess]:
    """One for each GPU, by its name."""
    native = options.tritonserver
    installation = native_installation(native) if native else pip_installation(run_dir)
    repository = _linked_repository(options.model_repository, run_dir, whole=native is not None)
    log_file = (options.log_file or run_dir / "triton.log").resolve()
    with _writable(log_file):
        log_file.parent.mkdir(parents=True, exist_ok=True)
        if not log_file.exists() or log_file.is_file():
            log_file.open("wb").close()
    usual = allocator_environment(beside_gpu=is_for_gpu(lock))
    allocator = {name: value for name, value in usual.items() if name not in os.environ}
    tritons = {}
    for number, gpu in enumerate(options.gpus or (None,)):
        visible = {} if gpu is None else {"CUDA_VISIBLE_DEVICES": gpu}
        log = log_file if number == 0 else log_file.with_name(f"{log_file.name}.{number}")
        name = "triton" if gpu is None else f"gpu{gpu}"
        tritons[name] = TritonProcess(
            TritonOptions(
                installation=installation,
                repository=repository,
                config_name=lock.config_name,
                secret=secret,
                region_prefix=f"{region_prefix(shared)}{number}_",
                run_dir=run_dir,
                log_file=log,
                environment={**allocator, **visible, VARIABLE: str(shared)},
                ready_timeout_s=options.ready_timeout_s,
                extra_arguments=options.extra_arguments,
            )
        )
    return tritons


def _linked_repository(repository: Path, run_dir: Path, *, whole: bool) -> Path:
    """Links to the models under a plain path, whatever the repository's own is.

    Args:
        repository: The models.
        run_dir: Folder for the links.
        whole: Whether every stage is a step of the ensemble. NVIDIA's own backends hand a GPU's
            tensors on rightly; ours do not (`text_to_video/configs/`).
    """
    linked = run_dir / "model_repository"
    linked.mkdir()
    for model in sorted(path.parent for path in repository.resolve().glob("*/config.pbtxt")):
        if whole and model.name == "text_to_video":
            (linked / model.name).mkdir()
            for part in ("config.pbtxt", "1"):
                (linked / model.name / part).symlink_to(model / part)
        else:
            (linked / model.name).symlink_to(model, target_is_directory=True)
    return linked


@contextlib.contextmanager
def _writable(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise ServerError(f"the log cannot be written to {path}: {error.strerror}") from None


def service_settings(repository: Path, config_name: str) -> ServiceSettings:
    """What the configs of a repository say of the service."""
    public = _parameters(repository, "text_to_video", config_name)
    diffusion = _parameters(repository, "video_diffusion", config_name)
    return ServiceSettings(
        max_requests_in_flight=public.integer("max_requests_in_flight", 1),
        max_active_requests=diffusion.integer("max_active_requests", 1),
        share_answers_s=public.integer("share_answers_seconds", 0),
    )


def _parameters(repository: Path, model: str, config_name: str) -> Parameters:
    folder = repository / model
    chosen = folder / "configs" / f"{config_name}.pbtxt"
    path = chosen if config_name and chosen.is_file() else folder / "config.pbtxt"
    config = text_format.Parse(path.read_text(), model_config_pb2.ModelConfig())
    values = {k: {"string_value": v.string_value} for k, v in config.parameters.items()}
    return Parameters({"parameters": values})


def check_shared_memory() -> None:
    """Raises `ServerError` if `/dev/shm`, through which stages pass frames, is too small."""
    if not SHARED_MEMORY.is_dir():
        raise ServerError(f"{SHARED_MEMORY} is missing; Triton's Python backend needs it")
    state = os.statvfs(SHARED_MEMORY)
    free = state.f_bavail * state.f_frsize
    if free < MIN_SHARED_MEMORY_BYTES:
        raise ServerError(
            f"{SHARED_MEMORY} has {free} bytes free; the limit is {MIN_SHARED_MEMORY_BYTES} "
            "(in a container: --shm-size=1g)"
        )


def announced(running: Running) -> str:
    """The line that `--ready-fd` gets: JSON."""
    return json.dumps(running.__dict__)
