"""Containers of the server's image, run as a cluster's restricted profile runs them."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.server.bare import free_ports

ROOT = Path(__file__).parents[2]
IMAGE = "localhost/reelserve-test"
SHM_SIZE = "512m"
RESTRICTED = (
    *("--read-only", "--cap-drop", "all", "--security-opt", "no-new-privileges"),
    *("--shm-size", SHM_SIZE),
)
CONFIG = Path(__file__).parent / "containers.conf"
BUILD_TIMEOUT_S, READY_TIMEOUT_S, COMMAND_TIMEOUT_S = 900.0, 60.0, 120.0
POLL_S = 0.05


def podman(*arguments: str, timeout_s: float = COMMAND_TIMEOUT_S) -> str:
    """Standard output of a podman command that must succeed."""
    done = subprocess.run(
        ["podman", *arguments],
        env={**os.environ, "CONTAINERS_CONF": str(CONFIG)},
        capture_output=True,
        text=True,
        timeout=timeout_s,
        check=False,
    )
    assert done.returncode == 0, f"podman {' '.join(arguments)}: {done.stderr}"
    return done.stdout.strip()


def skip_without_podman() -> None:
    """Skips a test, with the reason, where no container can be run."""
    if shutil.which("podman") is None:
        pytest.skip("podman is not installed")
    if shutil.which("mmdebstrap") is None:
        pytest.skip("mmdebstrap is not installed, and the image is built without a registry")


def build() -> None:
    """Builds the image as `make image` does."""
    done = subprocess.run(
        [ROOT / "deploy" / "build-image", IMAGE],
        capture_output=True,
        text=True,
        timeout=BUILD_TIMEOUT_S,
        check=False,
    )
    assert done.returncode == 0, done.stderr


@dataclass(frozen=True)
class Container:
    """A container whose server listens on ports of this machine.

    Args:
        name: Its name.
        grpc: Port of the clips.
        http: Port of the probes.
        metrics: Port of the metrics.
    """

    name: str
    grpc: int
    http: int
    metrics: int

    @property
    def url(self) -> str:
        """`host:port` of the clips."""
        return f"127.0.0.1:{self.grpc}"

    @property
    def metrics_url(self) -> str:
        """URL of the Prometheus metrics."""
        return f"http://127.0.0.1:{self.metrics}/metrics"

    def wait_ready(self) -> float:
        """Waits until it is ready and returns the seconds that took."""
        began = time.monotonic()
        while not self.is_ready():
            assert time.monotonic() - began < READY_TIMEOUT_S, self.log()
            time.sleep(POLL_S)
        return time.monotonic() - began

    def is_ready(self) -> bool:
        """Whether its probe says so."""
        try:
            urllib.request.urlopen(f"http://127.0.0.1:{self.http}/v2/health/ready", timeout=5)
        except (urllib.error.URLError, OSError):
            return False
        return True

    def log(self) -> str:
        """What it has written to standard output and standard error."""
        done = subprocess.run(["podman", "logs", self.name], capture_output=True, text=True)
        return done.stdout + done.stderr


def run_command(repository: Path, network: str, options: tuple[str, ...] = ()) -> tuple[str, ...]:
    """Arguments of podman that run the image; those of `reelserve serve` follow.

    Args:
        repository: Model repository on this machine; the container may only read it.
        network: `host`, since podman may have none of its own inside of a sandbox; or `none`.
        options: More of `podman run`.
    """
    mounted = ("--network", network, "--volume", f"{repository}:/models:ro")
    return ("run", "--detach", *RESTRICTED, *mounted, *options, IMAGE)


@contextlib.contextmanager
def running(
    repository: Path, *arguments: str, options: tuple[str, ...] = ()
) -> Iterator[Container]:
    """A container that serves a model repository at free ports of this machine.

    Args:
        repository: On this machine.
        arguments: More of `reelserve serve`.
        options: More of `podman run`.
    """
    grpc, http, metrics = free_ports(3)
    ports = (f"--grpc-port={grpc}", f"--http-port={http}", f"--metrics-port={metrics}")
    command = run_command(repository, "host", options)
    name = podman(*command, "--host=127.0.0.1", *ports, *arguments)
    try:
        yield Container(name, grpc, http, metrics)
    finally:
        podman("rm", "--force", "--time", "0", name)
