"""A `reelserve serve` that runs as a child process, for commands and tests that need a server."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
from dataclasses import dataclass, field
from pathlib import Path

from reelserve.server.frontend.ports import address
from reelserve.server.launch.serving import Running
from reelserve.server.launch.stage_processes import child_processes
from reelserve.server.launch.triton_process import KILL_AFTER_S, ServerError
from reelserve.server.launch.tritons import ServeOptions

STOP_AFTER_S = KILL_AFTER_S + 10
"""Triton is ended, then the front end; what still lives then is killed."""
SIGNALS_APART_S = 0.1
"""Two signals that come at once count as one."""


@dataclass
class Server:
    """A running server; a context manager.

    Example of use: `with Server(ServeOptions(Path("model_repository"))) as server:` and then
    connect a client to `server.grpc_url`.

    Args:
        options: How to run it.
    """

    options: ServeOptions
    _process: subprocess.Popen[bytes] | None = field(default=None, init=False)
    _running: Running | None = field(default=None, init=False)
    _messages: Path = field(default=Path(), init=False)
    _said: str = field(default="", init=False)
    _cleanup: contextlib.ExitStack = field(default_factory=contextlib.ExitStack, init=False)

    @property
    def running(self) -> Running:
        """What it has told about itself."""
        assert self._running is not None, "the server is not started"
        return self._running

    @property
    def grpc_url(self) -> str:
        """`host:port` of the gRPC endpoint."""
        return address(self.running.host, self.running.grpc_port)

    @property
    def http_url(self) -> str:
        """`host:port` of the probes."""
        return address(self.running.host, self.running.http_port)

    @property
    def metrics_url(self) -> str:
        """URL of the Prometheus metrics."""
        return f"http://{address(self.running.host, self.running.metrics_port)}/metrics"

    @property
    def ready_s(self) -> float:
        """Seconds that the start has taken."""
        return self.running.ready_s

    @property
    def pid(self) -> int:
        """Process id of the front end, whose children the Tritons are."""
        assert self._process is not None, "the server is not started"
        return self._process.pid

    @property
    def triton_pid(self) -> int:
        """Process id of the first Triton, whose children the stages are, as it is now."""
        return min((child.pid for child in child_processes(self.pid)), default=0)

    def start(self) -> Server:
        """Starts the server and waits until it is ready.

        Raises:
            ServerError: If it does not start; the message is its own.
        """
        folder = Path(self._cleanup.enter_context(tempfile.TemporaryDirectory()))
        self._messages = folder / "messages.txt"
        read, write = os.pipe()
        command = [sys.executable, "-m", "reelserve.server", *self.options.to_args()]
        with os.fdopen(read, "rb") as told, self._messages.open("wb") as messages:
            try:
                self._process = subprocess.Popen(
                    [*command, "--ready-fd", str(write)],
                    stdin=subprocess.DEVNULL,
                    stderr=messages,
                    pass_fds=(write,),
                    # Ctrl-C reaches who uses it, which stops it.
                    start_new_session=True,
                )
            finally:
                os.close(write)
            try:
                line = told.readline()
                if not line:
                    raise ServerError(self._end_without_start())
                self._running = Running(**json.loads(line))
            except BaseException:
                self.stop()
                raise
        return self

    def stop(self) -> int | None:
        """Ends the server at once, clips in flight too; does nothing when it is not running.

        Returns:
            Its exit status, or None if it was not running.
        """
        process, self._process = self._process, None
        if process is not None:
            # The first one asks for the end after what is in flight, the second one for it now.
            for _ in range(2):
                process.send_signal(signal.SIGTERM)
                with contextlib.suppress(subprocess.TimeoutExpired):
                    process.wait(SIGNALS_APART_S)
            try:
                process.wait(STOP_AFTER_S)
            except subprocess.TimeoutExpired:
                process.kill()
        self.messages()
        self._cleanup.close()
        return None if process is None else process.wait()

    def wait(self, timeout_s: float | None = None) -> int:
        """Waits for the server to end by itself and returns its exit status."""
        assert self._process is not None, "the server is not started"
        return self._process.wait(timeout_s)

    def messages(self) -> str:
        """What it has said on its standard error."""
        if self._messages.is_file():
            self._said = self._messages.read_text(errors="replace").strip()
        return self._said

    def _end_without_start(self) -> str:
        assert self._process is not None
        status = self._process.wait()
        return self.messages() or f"the server ended with status {status} before it was ready"

    def __enter__(self) -> Server:
        return self.start()

    def __exit__(self, *exception: object) -> None:
        self.stop()
