"""One `tritonserver` and its stages: started, looked after, ended."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import grpc
from tritonclient.grpc import service_pb2, service_pb2_grpc

from reelserve.server.frontend.upstream import CHANNEL_OPTIONS, Secret
from reelserve.server.launch import with_parent
from reelserve.server.launch.installation import Installation
from reelserve.server.launch.process_output import ProcessOutput
from reelserve.server.launch.run_folder import SHARED_MEMORY, close_regions
from reelserve.server.launch.stage_processes import has_ended, instance_processes, is_stopped

SOCKET_NUMBERS = (1, 2)
"""Ports that Triton is given for gRPC and metrics. It must have some, and writes the first one into
the name of its socket; nothing listens on either."""
READY_POLL_S = 0.1
EXIT_TIMEOUT_S = 10
"""How long Triton waits for requests that it still has once it was told to end; after a drain these
are previews alone."""
KILL_AFTER_S = EXIT_TIMEOUT_S + 10
"""How long Triton and its stages may take to end by themselves; then their group is killed."""
LAST_WORDS_S = 2.0
"""How long the last output of processes that have ended may take to be read."""
STARTS = 2
"""How often a Triton that crashes before it is ready is started."""
CRASH = "lock_exception"
"""Word with which Triton 2.51 aborted three of some 250 starts: of a mutex in shared memory."""
PROBE_TIMEOUT_S = 5.0
SCHEDULING = ("--rate-limit=execution_count",)
"""Honours the `rate_limiter` of the configs, which keeps stages with large peaks apart on a GPU."""
ERROR_LINE = re.compile(
    r"""^(?:E\d{4} [\d:.]+ \d+ [\w./]+:\d+\] "?|error: )(?P<message>.+)$""", re.MULTILINE
)
HARMLESS_ERRORS = ("CudaDriverHelper", "NVML")
"""Logged at every start on a machine without a GPU."""

_log = logging.getLogger(__name__)


class ServerError(RuntimeError):
    """The server did not start, or died; the message ends with its own error lines."""


@dataclass(frozen=True)
class TritonOptions:
    """How to start one Triton.

    Args:
        installation: The binary, its backends and its environment.
        repository: Model repository, under a path without white space.
        config_name: Which of the configs in `configs/` serve it; empty: `config.pbtxt`.
        secret: Header without which Triton answers nothing.
        region_prefix: Beginning of the names of its shared-memory regions.
        socket_folder: Where it listens: a folder that only this user may enter.
        run_dir: Its working folder.
        environment: Variables on top of those of the installation.
        ready_timeout_s: Bound on the start.
        extra_arguments: Passed to `tritonserver` as they are, last.
    """

    installation: Installation
    repository: Path
    config_name: str
    secret: Secret
    region_prefix: str
    socket_folder: Path
    run_dir: Path
    environment: Mapping[str, str]
    ready_timeout_s: float
    extra_arguments: tuple[str, ...] = ()

    @property
    def grpc_socket(self) -> Path:
        """Its gRPC endpoint, as gRPC names it."""
        return self.socket_folder / f"grpc:{SOCKET_NUMBERS[0]}"

    @property
    def metrics_socket(self) -> Path:
        """Its metrics, by HTTP."""
        return self.socket_folder / "metrics"

    def to_args(self) -> list[str]:
        """Command line of `tritonserver` that means these options.

        Its sockets stand in a folder of this user. Any user of the machine could connect to a TCP
        port of loopback, and read the secret in the arguments of the process.
        """
        grpc_number, metrics_number = SOCKET_NUMBERS
        return [
            str(self.installation.binary),
            f"--model-repository={self.repository}",
            "--allow-http=false",
            f"--grpc-address=unix:{self.socket_folder / 'grpc'}",
            f"--grpc-port={grpc_number}",
            f"--metrics-address=unix:{self.metrics_socket}",
            f"--metrics-port={metrics_number}",
            f"--grpc-restricted-protocol={self.secret.argument}",
            # Every config is complete; auto-completion would start each stage's process twice.
            "--disable-auto-complete-config",
            "--strict-readiness=true",
            f"--exit-timeout-secs={EXIT_TIMEOUT_S}",
            f"--backend-config=python,shm-region-prefix-name={self.region_prefix}",
            *SCHEDULING,
            # Models without a config of that name have their `config.pbtxt`.
            *([f"--model-config-name={self.config_name}"] if self.config_name else []),
            *self.installation.arguments,
            *self.extra_arguments,
        ]


@dataclass
class TritonProcess:
    """A Triton that can be started again and again.

    Args:
        options: How to start it.
        new_output: Takes what one start of it, and its stages, write.
    """

    options: TritonOptions
    new_output: Callable[[], ProcessOutput]
    _process: subprocess.Popen[bytes] | None = field(default=None, init=False)
    _stages: dict[str, int] = field(default_factory=dict, init=False)
    _output: ProcessOutput | None = field(default=None, init=False)
    _channel: grpc.aio.Channel | None = field(default=None, init=False)
    _stopped_since: float | None = field(default=None, init=False)
    _asked: float = field(default=0.0, init=False)
    _answered: float = field(default=0.0, init=False)

    @property
    def channel(self) -> grpc.aio.Channel:
        """To its gRPC endpoint, of this start."""
        assert self._channel is not None, "Triton is not started"
        return self._channel

    @property
    def pid(self) -> int:
        """Process id of `tritonserver`, whose children the stages are; 0 while it does not run."""
        return self._process.pid if self._process is not None else 0

    async def start(self) -> None:
        """Starts it and waits until every model is ready.

        Raises:
            ServerError: If it ends, or is not ready in time; the message holds its own errors.
        """
        for left in reversed(range(STARTS)):
            try:
                await self._start_once()
            except ServerError:
                again = left > 0 and self._has_crashed()
                await self.stop(kill_after_s=0)
                if not again:
                    raise
            except BaseException:
                await self.stop(kill_after_s=0)
                raise
            else:
                return

    def _has_crashed(self) -> bool:
        """Whether it ended in a way that the next start may not; says so in the log."""
        status = self._process.poll() if self._process else None
        crashed = (status is not None and status < 0) or CRASH in self._log_text()
        if crashed:
            _log.warning(
                "Triton crashed with status %s before it was ready; it is started once more", status
            )
        return crashed

    async def stop(self, kill_after_s: float = KILL_AFTER_S) -> None:
        """Ends it and every stage; does nothing when it is not running.

        Args:
            kill_after_s: How long it may take to end by itself.
        """
        process, self._process = self._process, None
        channel, self._channel = self._channel, None
        if process is None:
            return
        try:
            if channel is not None:
                await channel.close()
            if process.poll() is None and kill_after_s > 0:
                process.send_signal(signal.SIGTERM)
                deadline = time.monotonic() + kill_after_s
                while process.poll() is None and time.monotonic() < deadline:
                    await asyncio.sleep(READY_POLL_S)
        finally:
            # Whatever of its process group is left.
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            # Elsewhere: a GPU's memory takes seconds to be given back.
            await asyncio.to_thread(process.wait)
            if self._output is not None:
                # Its last words come into the log before what follows.
                await asyncio.to_thread(self._output.wait_ended, LAST_WORDS_S)

    def lost(self) -> str | None:
        """Why it cannot answer any more; None while it can. Looks at its processes alone."""
        process = self._process
        if process is None:
            return "Triton does not run"
        if (status := process.poll()) is not None:
            return f"Triton ended with status {status}"
        if not self._stages:
            return None
        dead = sorted(stage for stage, pid in self._stages.items() if has_ended(pid))
        return f"the process of {', '.join(dead)} has died" if dead else None

    async def hung(self, after_s: float) -> str | None:
        """Why it is taken to hang: a process that is stopped, or no answer, for so long."""
        processes = {"Triton": self.pid, **self._stages}
        stopped = sorted(name for name, pid in processes.items() if is_stopped(pid))
        now = time.monotonic()
        self._stopped_since = (self._stopped_since or now) if stopped else None
        if self._stopped_since is not None and now - self._stopped_since >= after_s:
            return f"the process of {', '.join(stopped)} has been stopped for {after_s:g} s"
        if now - self._asked >= min(PROBE_TIMEOUT_S, after_s):
            self._asked = now
            if await self._ready(min(PROBE_TIMEOUT_S, after_s)) is not None:
                self._answered = time.monotonic()
        if time.monotonic() - self._answered >= after_s:
            return f"Triton has not answered for {after_s:g} s"
        return None

    def errors(self) -> str:
        """What its log says went wrong since the last start."""
        return error_lines(self._log_text())

    async def _start_once(self) -> None:
        options = self.options
        self._stages, self._stopped_since = {}, None
        for left in (options.grpc_socket, options.metrics_socket):
            left.unlink(missing_ok=True)
        self._channel = grpc.aio.insecure_channel(
            f"unix:{options.grpc_socket}", options=CHANNEL_OPTIONS
        )
        self._output = self.new_output()
        with self._output.writing() as descriptor:
            self._process = subprocess.Popen(
                # Dies with this process, also when that is killed.
                [
                    sys.executable,
                    "-I",
                    "-S",
                    with_parent.__file__,
                    str(os.getpid()),
                    *options.to_args(),
                ],
                stdin=subprocess.DEVNULL,
                stdout=descriptor,
                stderr=subprocess.STDOUT,
                env={**os.environ, **options.installation.environment, **options.environment},
                cwd=options.run_dir,
                # Its own group: Ctrl-C reaches this process alone, which ends Triton once, and
                # what Triton leaves behind can be killed as a whole.
                start_new_session=True,
            )
        await self._wait_ready()
        if open_regions := close_regions(SHARED_MEMORY, options.region_prefix):
            _log.warning(
                "while the stages started, other users of this machine could open %d of their "
                "regions in %s: the kernel takes no seccomp filter",
                open_regions,
                SHARED_MEMORY,
            )
        self._stages = instance_processes(self.pid)
        self._answered = time.monotonic()

    async def _wait_ready(self) -> None:
        assert self._process is not None
        timeout_s = self.options.ready_timeout_s
        deadline = time.monotonic() + timeout_s
        while time.monotonic() < deadline:
            status = self._process.poll()
            if status is not None:
                raise ServerError(
                    f"Triton ended with status {status} before it was ready\n{self.errors()}"
                )
            if await self._ready(PROBE_TIMEOUT_S):
                return
            await asyncio.sleep(READY_POLL_S)
        raise ServerError(f"Triton was not ready within {timeout_s:g} s\n{self.errors()}")

    async def _ready(self, timeout_s: float) -> bool | None:
        """Whether it says that it is ready; None if it says nothing."""
        stub = service_pb2_grpc.GRPCInferenceServiceStub(self.channel)
        try:
            reply = await stub.ServerReady(service_pb2.ServerReadyRequest(), timeout=timeout_s)
        except grpc.aio.AioRpcError:
            return None
        return bool(reply.ready)

    def _log_text(self) -> str:
        return self._output.text() if self._output is not None else ""


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
