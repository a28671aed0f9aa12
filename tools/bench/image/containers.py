"""Containers of the server's image, run by podman as a cluster's restricted profile runs them."""

from __future__ import annotations

import contextlib
import socket
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from reelserve.server.launch.shared_memory import shared_memory_need
from reelserve.server.launch.triton_process import ServerError

RESTRICTED = ("--read-only", "--cap-drop", "all", "--security-opt", "no-new-privileges")
READY_TIMEOUT_S, COMMAND_TIMEOUT_S, PROBE_TIMEOUT_S = 120.0, 120.0, 5.0
POLL_S = 0.05
KILL_SERVER = """
import os, pathlib, signal
children = pathlib.Path("/proc/1/task/1/children").read_text().split()
os.kill(int(children[0]), signal.SIGKILL)
"""
"""For Python inside of a container: the child of tini is the server."""


class PodmanError(ServerError):
    """Podman is not there or a command of it failed; the message names the command."""


def run_podman(*arguments: str, timeout_s: float = COMMAND_TIMEOUT_S) -> str:
    """Standard output of a podman command.

    Raises:
        PodmanError: If it fails or takes longer than `timeout_s`.
    """
    return run_tool(("podman", *arguments), timeout_s)


def run_tool(command: Sequence[str], timeout_s: float = COMMAND_TIMEOUT_S) -> str:
    """Standard output of a command that makes or runs containers.

    Raises:
        PodmanError: If it fails, is not there, or takes longer than `timeout_s`.
    """
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=timeout_s)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise PodmanError(str(error)) from None
    if done.returncode:
        raise PodmanError(f"{' '.join(command)}: {done.stderr.strip() or done.stdout.strip()}")
    return done.stdout.strip()


@dataclass(frozen=True)
class Container:
    """A container whose server listens on ports of this machine's loopback address.

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
        """Waits until it is ready and returns the seconds that took.

        Raises:
            PodmanError: If it is not within `READY_TIMEOUT_S`; the message ends with its log.
        """
        return self.wait_until(self.is_ready)

    def wait_gone(self) -> None:
        """Waits until it is not ready.

        Raises:
            PodmanError: If it stays ready for `READY_TIMEOUT_S`.
        """
        self.wait_until(lambda: not self.is_ready())

    def is_ready(self) -> bool:
        """Whether its probe says so."""
        url = f"http://127.0.0.1:{self.http}/v2/health/ready"
        try:
            with urllib.request.urlopen(url, timeout=PROBE_TIMEOUT_S):
                return True
        except (urllib.error.URLError, OSError):
            return False

    def wait_until(self, condition: Callable[[], bool]) -> float:
        """Waits for a condition and returns the seconds that took.

        Raises:
            PodmanError: If it does not hold within `READY_TIMEOUT_S`.
        """
        began = time.monotonic()
        while not condition():
            if time.monotonic() - began > READY_TIMEOUT_S:
                raise PodmanError(f"no change in {READY_TIMEOUT_S:g} s:\n{self.log()}")
            time.sleep(POLL_S)
        return time.monotonic() - began

    def log(self) -> str:
        """What it has written to standard output and standard error."""
        done = subprocess.run(["podman", "logs", self.name], capture_output=True, text=True)
        return done.stdout + done.stderr

    def kill_server(self) -> None:
        """Kills the server, which has no time to end anything."""
        # With the server the container ends, and what was run in it.
        with contextlib.suppress(PodmanError):
            run_podman("exec", self.name, "python", "-c", KILL_SERVER)


def run_command(
    image: str, repository: Path, network: str, options: Sequence[str] = ()
) -> tuple[str, ...]:
    """Arguments of podman that run the image; those of `reelserve serve` follow.

    Args:
        image: Its name.
        repository: Model repository on this machine; the container may only read it.
        network: `host`, or what else podman knows.
        options: More of `podman run`.
    """
    mounted = ("--network", network, "--volume", f"{repository.resolve()}:/models:ro")
    return ("run", "--detach", *RESTRICTED, shm_size(repository), *mounted, *options, image)


def shm_size(repository: Path) -> str:
    """Option of podman: shared memory as large as `reelserve serve --check` asks for.

    Raises:
        RepositoryError: If a file of the repository cannot be read.
    """
    return f"--shm-size={shared_memory_need(repository).size}"


@contextlib.contextmanager
def running(
    image: str, repository: Path, *arguments: str, options: Sequence[str] = ()
) -> Iterator[Container]:
    """A container that serves a model repository at free ports of this machine.

    Args:
        image: Its name.
        repository: On this machine.
        arguments: More of `reelserve serve`.
        options: More of `podman run`.
    """
    ports = free_ports(3)
    command = run_command(image, repository, "host", options)
    name = run_podman(*command, *port_arguments(ports), *arguments)
    try:
        yield Container(name, *ports)
    finally:
        remove_container(name)


def port_arguments(ports: Sequence[int]) -> tuple[str, ...]:
    """Arguments of `reelserve serve` for this machine's loopback address.

    Args:
        ports: Those of clips, probes and metrics.
    """
    names = ("grpc", "http", "metrics")
    numbers = (f"--{name}-port={port}" for name, port in zip(names, ports, strict=True))
    return ("--host=127.0.0.1", *numbers)


def remove_container(name: str) -> None:
    """Ends a container at once and removes it."""
    run_podman("rm", "--force", "--time", "0", name)


def free_ports(count: int) -> list[int]:
    """TCP ports of the loopback address that are free, all different."""
    with contextlib.ExitStack() as stack:
        probes = [
            stack.enter_context(socket.socket(socket.AF_INET, socket.SOCK_STREAM))
            for _ in range(count)
        ]
        for probe in probes:
            probe.bind(("127.0.0.1", 0))
        return [int(probe.getsockname()[1]) for probe in probes]
