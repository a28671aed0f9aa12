"""Starts and stops NVIDIA Triton Inference Server as a child process."""

from __future__ import annotations

import contextlib
import http.client
import os
import re
import signal
import socket
import subprocess
import tempfile
import time
import uuid
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType

from reelserve.server.allocator import allocator_environment
from reelserve.server.board import SHARED_MEMORY, remove_board
from reelserve.server.installation import Installation, native_installation, pip_installation
from reelserve.server.repository import RepositoryError, check_repository, is_for_gpu
from reelserve.server.stage_processes import stage_processes

READY_POLL_S = 0.1
WATCH_S = 0.5
"""Between two looks whether every stage lives."""
EXIT_TIMEOUT_S = 10
"""How long the server waits for requests in flight once it was told to end."""
KILL_AFTER_S = EXIT_TIMEOUT_S + 10
"""Stages end after the last request; what still lives then is killed."""
BROKEN_KILL_AFTER_S = 3
"""The same without one of its stages: what the others can still answer takes no longer, and every
second is one without a server."""
PORT_ATTEMPTS = 3
MIN_SHARED_MEMORY_BYTES = 256 * 2**20
"""Clips of 80 frames of 256×256 were seen to take 50 MB and of 240 frames 150 MB; regions are
reused and never shrink."""
SCHEDULING = ("--rate-limit=execution_count",)
"""Honours the `rate_limiter` of the configs, which keeps stages with large peaks apart on a GPU."""
ERROR_LINE = re.compile(
    r"""^(?:E\d{4} [\d:.]+ \d+ [\w./]+:\d+\] "?|error: )(?P<message>.+)$""", re.MULTILINE
)
HARMLESS_ERRORS = ("CudaDriverHelper", "NVML")
"""Logged at every start on a machine without a GPU."""


class ServerError(RuntimeError):
    """The server did not start, or died; the message ends with its own error lines."""


@dataclass(frozen=True)
class ServerOptions:
    """How to start the server.

    Args:
        model_repository: Folder with one folder a model.
        host: Address to listen on.
        grpc_port: TCP port; None takes a free one.
        http_port: TCP port; None takes a free one.
        metrics_port: TCP port; None takes a free one.
        tritonserver: NVIDIA's own binary; None uses the pip-installed one.
        log_file: Where the server's log goes; None keeps it until the server is stopped.
        ready_timeout_s: Bound on the start.
        verify: Whether every exported file is read and compared with the hash of its export.
        extra_arguments: Passed to `tritonserver` as they are, last.
    """

    model_repository: Path
    host: str = "127.0.0.1"
    grpc_port: int | None = None
    http_port: int | None = None
    metrics_port: int | None = None
    tritonserver: Path | None = None
    log_file: Path | None = None
    ready_timeout_s: float = 120.0
    verify: bool = False
    extra_arguments: tuple[str, ...] = ()


@dataclass
class TritonServer:
    """A running server; a context manager.

    Example of use: `with TritonServer(ServerOptions(Path("model_repository"))) as server:` and
    then connect a client to `server.grpc_url`.

    Args:
        options: How to start it.
    """

    options: ServerOptions
    grpc_port: int = field(default=0, init=False)
    http_port: int = field(default=0, init=False)
    metrics_port: int = field(default=0, init=False)
    ready_s: float = field(default=0.0, init=False)
    log_file: Path = field(default=Path(), init=False)
    _process: subprocess.Popen[bytes] | None = field(default=None, init=False)
    _config_name: str = field(default="", init=False)
    _allocator: dict[str, str] = field(default_factory=dict, init=False)
    _shm_prefix: str = field(default="", init=False)
    _stages: set[str] = field(default_factory=set, init=False)
    _cleanup: contextlib.ExitStack = field(default_factory=contextlib.ExitStack, init=False)

    @property
    def grpc_url(self) -> str:
        """`host:port` of the gRPC endpoint."""
        return f"{self.options.host}:{self.grpc_port}"

    @property
    def http_url(self) -> str:
        """`host:port` of the HTTP endpoint."""
        return f"{self.options.host}:{self.http_port}"

    @property
    def metrics_url(self) -> str:
        """URL of the Prometheus metrics."""
        return f"http://{self.options.host}:{self.metrics_port}/metrics"

    @property
    def pid(self) -> int:
        """Process id of `tritonserver`; its stages are its children."""
        assert self._process is not None, "the server is not started"
        return self._process.pid

    def start(self) -> TritonServer:
        """Starts the server and waits until every model is ready.

        Raises:
            ServerError: If it ends, or is not ready in time; the message holds its own errors.
            InstallationError: If there is no usable Triton server.
        """
        try:
            lock = check_repository(self.options.model_repository, verify=self.options.verify)
        except RepositoryError as error:
            raise ServerError(str(error)) from None
        self._config_name = lock.config_name
        self._allocator = allocator_environment(beside_gpu=is_for_gpu(lock))
        check_shared_memory()
        for attempt in range(1, PORT_ATTEMPTS + 1):
            try:
                self._start_once()
                self._stages = set(stage_processes(self.pid))
                return self
            except ServerError:
                # Between choosing a free port and the server's bind another process may take it.
                lost_port = "already in use" in self._log_text()
                chosen = None in (
                    self.options.grpc_port,
                    self.options.http_port,
                    self.options.metrics_port,
                )
                self.stop()
                if not (lost_port and chosen and attempt < PORT_ATTEMPTS):
                    raise
            except BaseException:
                self.stop()
                raise
        raise AssertionError("unreachable")

    def stop(self, kill_after_s: float = KILL_AFTER_S) -> int | None:
        """Ends the server and every stage; does nothing when it is not running.

        Args:
            kill_after_s: How long it may take to end by itself.

        Returns:
            The server's exit status, or None if it was not running.
        """
        process, self._process = self._process, None
        status = None
        if process is not None:
            status = _end(process, kill_after_s)
            remove_board(process.pid)
            for leftover in SHARED_MEMORY.glob(f"{self._shm_prefix}*"):
                leftover.unlink(missing_ok=True)
        self._cleanup.close()
        return status

    def wait(self) -> int:
        """Waits for the server to end by itself and returns its exit status.

        Raises:
            ServerError: If a stage has died, which Triton does not start again; the server is
                stopped, so that a supervisor starts all of it.
        """
        assert self._process is not None, "the server is not started"
        while self._process.poll() is None:
            lost = sorted(self._stages - set(stage_processes(self.pid)))
            # A server that is ending ends its stages first.
            if lost and not self._ends_soon():
                self.stop(BROKEN_KILL_AFTER_S)
                raise ServerError(f"the process of {', '.join(lost)} has died; Triton was stopped")
            time.sleep(WATCH_S)
        return self._process.wait()

    def _ends_soon(self) -> bool:
        assert self._process is not None
        try:
            self._process.wait(WATCH_S)
        except subprocess.TimeoutExpired:
            return "Waiting for in-flight requests" in self._log_text()
        return True

    def errors(self) -> str:
        """What the server's log says went wrong."""
        where = f"\nfull log: {self.log_file}" if self.options.log_file else ""
        return error_lines(self._log_text()) + where

    def __enter__(self) -> TritonServer:
        return self.start()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.stop()

    def _start_once(self) -> None:
        options = self.options
        run_dir = self._cleanup.enter_context(_run_folder())
        # Under a plain path, whatever the repository's own is.
        repository = run_dir / "model_repository"
        repository.symlink_to(options.model_repository.resolve(), target_is_directory=True)
        installation = (
            native_installation(options.tritonserver)
            if options.tritonserver
            else pip_installation(run_dir)
        )
        self.grpc_port, self.http_port, self.metrics_port = _ports(
            options.host, (options.grpc_port, options.http_port, options.metrics_port)
        )
        self.log_file = (options.log_file or run_dir / "triton.log").resolve()
        self.log_file.parent.mkdir(parents=True, exist_ok=True)
        # Names every shared memory region of this run, so that none outlives it.
        self._shm_prefix = f"reelserve_{uuid.uuid4().hex[:8]}_"
        started = time.monotonic()
        with self.log_file.open("wb") as log:
            self._process = subprocess.Popen(
                self._command(installation, repository),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env={**self._allocator, **os.environ, **installation.environment},
                cwd=run_dir,
                # Its own group: Ctrl-C reaches the launcher alone, which ends the server once,
                # and what the server leaves behind can be killed as a whole.
                start_new_session=True,
            )
        self._wait_ready(started)
        self.ready_s = time.monotonic() - started

    def _command(self, installation: Installation, repository: Path) -> list[str]:
        options = self.options
        return [
            str(installation.binary),
            f"--model-repository={repository}",
            f"--http-address={options.host}",
            f"--grpc-address={options.host}",
            f"--metrics-address={options.host}",
            f"--http-port={self.http_port}",
            f"--grpc-port={self.grpc_port}",
            f"--metrics-port={self.metrics_port}",
            # Every config is complete; auto-completion would start each stage's process twice.
            "--disable-auto-complete-config",
            "--strict-readiness=true",
            f"--exit-timeout-secs={EXIT_TIMEOUT_S}",
            f"--backend-config=python,shm-region-prefix-name={self._shm_prefix}",
            *SCHEDULING,
            # Models without a config of that name have their `config.pbtxt`.
            *([f"--model-config-name={self._config_name}"] if self._config_name else []),
            *installation.arguments,
            *options.extra_arguments,
        ]

    def _wait_ready(self, started: float) -> None:
        assert self._process is not None
        deadline = started + self.options.ready_timeout_s
        while time.monotonic() < deadline:
            status = self._process.poll()
            if status is not None:
                raise ServerError(
                    f"Triton ended with status {status} before it was ready\n{self.errors()}"
                )
            if _http_ready(self.options.host, self.http_port):
                return
            time.sleep(READY_POLL_S)
        raise ServerError(
            f"Triton was not ready within {self.options.ready_timeout_s:g} s\n{self.errors()}"
        )

    def _log_text(self) -> str:
        try:
            return self.log_file.read_text(errors="replace")
        except OSError:
            return ""


def error_lines(log: str, limit: int = 12) -> str:
    """Picks from a Triton log what says why it failed: its error lines, else its last lines.

    Time stamps and stack traces are cut off, repeated lines and known harmless ones left out.
    """
    errors = dict.fromkeys(
        match["message"].split("\\n", 1)[0].rstrip('"')
        for match in ERROR_LINE.finditer(log)
        if not any(harmless in match["message"] for harmless in HARMLESS_ERRORS)
    )
    return "\n".join((list(errors) or log.splitlines())[-limit:])


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


@contextlib.contextmanager
def _run_folder() -> Iterator[Path]:
    """A temporary folder whose path holds no white space.

    Triton starts a stage by a command line that it splits at white space; a stage below
    `/home/me/my videos` would die at once and Triton wait for it.
    """
    folder = Path(tempfile.gettempdir()).resolve()
    if re.search(r"\s", str(folder)):
        folder = Path("/tmp")
    with tempfile.TemporaryDirectory(prefix="reelserve-", dir=folder) as run_dir:
        yield Path(run_dir)


def _ports(host: str, wanted: tuple[int | None, ...]) -> list[int]:
    """Replaces each None by a free port, all different.

    Raises:
        ServerError: If a port that was asked for is in use. Another server behind it would
            answer that it is ready, so this must not be left to Triton.
    """
    with contextlib.ExitStack() as stack:
        ports = []
        for port in wanted:
            probe = stack.enter_context(socket.socket(socket.AF_INET, socket.SOCK_STREAM))
            # As Triton binds: a port whose last connection is just closing counts as free.
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((host, port or 0))
            except OSError as error:
                raise ServerError(f"cannot listen on {host}:{port}: {error.strerror}") from None
            ports.append(int(probe.getsockname()[1]))
        return ports


def _http_ready(host: str, port: int) -> bool:
    connection = http.client.HTTPConnection(host, port, timeout=2)
    try:
        connection.request("GET", "/v2/health/ready")
        return connection.getresponse().status == http.client.OK
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()


def _end(process: subprocess.Popen[bytes], kill_after_s: float) -> int:
    """Asks the server to end, then kills whatever of its process group is left."""
    try:
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(kill_after_s)
    finally:
        # Also when a second Ctrl-C interrupts the wait.
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
    return process.wait()
