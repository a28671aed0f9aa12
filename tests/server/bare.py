"""NVIDIA's `tritonserver` as anybody would start it, without our launcher and front end."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tritonclient.grpc import InferenceServerClient
from tritonclient.utils import InferenceServerException

from reelserve.runtimes.export_lock import ExportLock
from reelserve.server.launch.installation import pip_installation
from reelserve.server.launch.triton_process import error_lines
from reelserve.tools.bench.image.containers import free_ports

START_TIMEOUT_S = 120
END_TIMEOUT_S = 40


@dataclass(frozen=True)
class BareTriton:
    """A running one.

    Args:
        grpc_url: `host:port` of its gRPC endpoint.
    """

    grpc_url: str


@contextlib.contextmanager
def bare_triton(repository: Path, *arguments: str) -> Iterator[BareTriton]:
    """Serves a repository by the pip-installed Triton, every stage open to anybody.

    Args:
        repository: Under a path without white space.
        arguments: More of `tritonserver`'s.
    """
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        installation = pip_installation(folder)
        grpc_port, http_port, metrics_port = free_ports(3)
        lock = ExportLock.load(repository)
        chosen = [f"--model-config-name={lock.config_name}"] if lock and lock.config_name else []
        with (folder / "log").open("wb") as log:
            process = subprocess.Popen(
                [
                    str(installation.binary),
                    f"--model-repository={repository}",
                    f"--grpc-port={grpc_port}",
                    f"--http-port={http_port}",
                    f"--metrics-port={metrics_port}",
                    "--disable-auto-complete-config",
                    *chosen,
                    *installation.arguments,
                    *arguments,
                ],
                stdout=log,
                stderr=subprocess.STDOUT,
                env={**os.environ, **installation.environment},
                cwd=folder,
                start_new_session=True,
            )
        try:
            url = f"127.0.0.1:{grpc_port}"
            _wait_ready(process, url, folder / "log")
            yield BareTriton(url)
        finally:
            process.send_signal(signal.SIGTERM)
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(END_TIMEOUT_S)
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def _wait_ready(process: subprocess.Popen[bytes], url: str, log: Path) -> None:
    deadline = time.monotonic() + START_TIMEOUT_S
    with InferenceServerClient(url) as client:
        while time.monotonic() < deadline and process.poll() is None:
            with contextlib.suppress(InferenceServerException):
                if client.is_server_ready(client_timeout=5):
                    return
            time.sleep(0.1)
    raise RuntimeError(f"Triton does not serve:\n{error_lines(log.read_text(errors='replace'))}")
