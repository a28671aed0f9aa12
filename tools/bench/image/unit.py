"""The systemd unit, run by a systemd that is process 1 of a container.

The container is the Debian that the image stands on, with systemd. It sees the server's folder of
the image as `/opt/reelserve`, and may mount (`CAP_SYS_ADMIN`), which the unit's sandbox needs.
"""

from __future__ import annotations

import contextlib
import json
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from reelserve.tools.bench.image.containers import (
    Container,
    PodmanError,
    free_ports,
    port_arguments,
    remove_container,
    run_podman,
    shm_size,
)

UNIT = "reelserve.service"
FOLDER = Path("deploy", "systemd")
TAG = "localhost/reelserve-systemd"
BASE = "localhost/reelserve-debian:bookworm"
BUILD_TIMEOUT_S, STOP_TIMEOUT_S = 600.0, 400.0


@dataclass(frozen=True)
class Unit(Container):
    """A container whose systemd knows the server's unit, which is not started yet."""

    def systemctl(self, *arguments: str, timeout_s: float = STOP_TIMEOUT_S) -> str:
        """What `systemctl` prints inside.

        Raises:
            PodmanError: If it fails.
        """
        return run_podman("exec", self.name, "systemctl", *arguments, timeout_s=timeout_s)

    def wait_booted(self) -> None:
        """Waits until systemd takes commands.

        Raises:
            PodmanError: If it does not in time.
        """
        self.wait_until(self._is_booted)

    def _is_booted(self) -> bool:
        try:
            return self.systemctl("is-system-running", "--wait") == "running"
        except PodmanError:
            # Nothing listens yet.
            return False

    def property(self, name: str) -> str:
        """A property of the unit, for example `ActiveState`."""
        return self.systemctl("show", "--property", name, "--value", UNIT)

    def log(self) -> str:
        """What systemd's journal has of the unit."""
        return run_podman("exec", self.name, "journalctl", "--no-pager", "--unit", UNIT)

    def kill_server(self) -> None:
        """Kills the unit's main process, which has no time to end anything."""
        self.systemctl("kill", "--signal", "KILL", "--kill-whom", "main", UNIT)

    def status(self) -> dict[str, str]:
        """Fields of `/proc/<main process>/status`."""
        pid = self.property("MainPID")
        lines = run_podman("exec", self.name, "cat", f"/proc/{pid}/status").splitlines()
        return {name: value.strip() for name, _, value in (line.partition(":") for line in lines)}

    def mounts(self) -> dict[str, str]:
        """Where something is mounted for the main process, to how."""
        pid = self.property("MainPID")
        lines = run_podman("exec", self.name, "cat", f"/proc/{pid}/mountinfo").splitlines()
        return {fields[4]: f"{fields[5]},{fields[-1]}" for fields in map(str.split, lines)}


@contextlib.contextmanager
def booted(image: str, repository: Path, root: Path = Path()) -> Iterator[Unit]:
    """A container in which systemd runs.

    Args:
        image: The server's image.
        repository: Model repository on this machine; the unit may only read it.
        root: Checkout that holds `deploy/`.

    Raises:
        PodmanError: If it cannot be made, or systemd does not start.
    """
    folder = (root / FOLDER).resolve()
    build = ("build", "--format", "docker", "--network", "host", "--quiet", "--tag", TAG)
    run_podman(*build, "--build-arg", f"BASE={BASE}", str(folder), timeout_s=BUILD_TIMEOUT_S)
    ports = free_ports(3)
    with contextlib.ExitStack() as stack:
        server = Path(run_podman("image", "mount", image)) / "opt" / "reelserve"
        stack.callback(run_podman, "image", "unmount", image)
        environment = Path(stack.enter_context(tempfile.TemporaryDirectory())) / "environment"
        environment.write_text(f"REELSERVE_ARGUMENTS={' '.join(port_arguments(ports))}\n")
        volumes = {
            server: "/opt/reelserve",
            repository.resolve(): "/srv/reelserve",
            folder / UNIT: f"/etc/systemd/system/{UNIT}",
            environment: "/etc/reelserve/environment",
        }
        mounted = [f"--volume={here}:{there}:ro" for here, there in volumes.items()]
        rights = ("--systemd=always", "--cap-add=SYS_ADMIN", "--network=host")
        name = run_podman("run", "--detach", *rights, shm_size(repository), *mounted, TAG)
        stack.callback(remove_container, name)
        unit = Unit(name, *ports)
        unit.wait_booted()
        yield unit


def versions(unit: Unit) -> dict[str, str]:
    """Versions of podman, of what runs its containers, and of systemd."""
    told = json.loads(run_podman("info", "--format", "json"))
    runtime = Path(told["host"]["ociRuntime"]["path"]).name
    return {
        "podman": told["version"]["Version"],
        runtime: told["host"]["ociRuntime"]["version"].split()[2],
        "systemd": unit.systemctl("--version").split()[1],
    }
