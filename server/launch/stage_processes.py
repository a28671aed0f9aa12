"""The processes of a server's stages, as Linux shows them.

Triton does not start a stage's process again when it has died (seen with 2.51): every request
that needs it fails from then on, while the server still says that it is ready.
"""

from __future__ import annotations

import contextlib
import re
from pathlib import Path

PROC = Path("/proc")
STUB = "triton_python_backend_stub"
INSTANCE = re.compile(r"[a-z_]+_\d+_\d+")
"""Name of an instance, an argument of its process: stage, group, number."""
FIRST_INSTANCE = "_0_0"
STOPPED, DEAD = "Tt", "ZX"
"""Letters of process states."""


def instance_processes(server: int) -> dict[str, int]:
    """Instance of a stage to its process id, of the `tritonserver` with process id `server`.

    A process that has died is left out.
    """
    instances = {}
    for children in PROC.glob(f"{server}/task/*/children"):
        with contextlib.suppress(OSError):
            for pid in map(int, children.read_text().split()):
                instance = _instance(pid)
                if instance is not None:
                    instances[instance] = pid
    return instances


def stage_processes(server: int) -> dict[str, int]:
    """Stage to the process id of its first instance; see `instance_processes`."""
    return {
        name.removesuffix(FIRST_INSTANCE): pid
        for name, pid in instance_processes(server).items()
        if name.endswith(FIRST_INSTANCE)
    }


def process_state(pid: int) -> str:
    """Letter of a process's state; `X` if there is no such process."""
    try:
        # The name, in brackets, may hold anything.
        return (PROC / str(pid) / "stat").read_text(errors="replace").rpartition(")")[2].split()[0]
    except (OSError, IndexError):
        return "X"


def _instance(pid: int) -> str | None:
    with contextlib.suppress(OSError):
        # Empty for a process that has died and was not yet waited for.
        arguments = (PROC / str(pid) / "cmdline").read_text().split("\0")
        if STUB in arguments[0]:
            return next((text for text in arguments if INSTANCE.fullmatch(text)), None)
    return None
