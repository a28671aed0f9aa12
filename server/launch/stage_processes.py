"""The processes of a server's stages, as the system shows them.

Triton does not start a stage's process again when it has died (seen with 2.51): every request
that needs it fails from then on, while the server still says that it is ready.
"""

from __future__ import annotations

import contextlib
import re

import psutil

STUB = "triton_python_backend_stub"
INSTANCE = re.compile(r"[a-z_]+_\d+_\d+")
"""Name of an instance, an argument of its process: stage, group, number."""
FIRST_INSTANCE = "_0_0"
ENDED = (psutil.STATUS_ZOMBIE, psutil.STATUS_DEAD)
STOPPED = (psutil.STATUS_STOPPED, psutil.STATUS_TRACING_STOP)


def child_processes(parent: int) -> list[psutil.Process]:
    """Children of a process, oldest first; empty if it has ended."""
    with contextlib.suppress(psutil.NoSuchProcess):
        return sorted(psutil.Process(parent).children(), key=lambda child: child.pid)
    return []


def instance_processes(server: int) -> dict[str, int]:
    """Instance of a stage to its process id, of the `tritonserver` with process id `server`.

    A process that has died is left out.
    """
    instances = {}
    for child in child_processes(server):
        # One that has died since, or was not yet waited for, has no arguments.
        with contextlib.suppress(psutil.Error):
            program, *arguments = child.cmdline() or [""]
            name = next((text for text in arguments if INSTANCE.fullmatch(text)), None)
            if STUB in program and name is not None:
                instances[name] = child.pid
    return instances


def stage_processes(server: int) -> dict[str, int]:
    """Stage to the process id of its first instance; see `instance_processes`."""
    return {
        name.removesuffix(FIRST_INSTANCE): pid
        for name, pid in instance_processes(server).items()
        if name.endswith(FIRST_INSTANCE)
    }


def has_ended(pid: int) -> bool:
    """Whether a process has ended; one that was not yet waited for has, too."""
    return _status(pid) in (None, *ENDED)


def is_stopped(pid: int) -> bool:
    """Whether a process is there and was stopped, by SIGSTOP or a debugger."""
    return _status(pid) in STOPPED


def _status(pid: int) -> str | None:
    with contextlib.suppress(psutil.NoSuchProcess):
        return str(psutil.Process(pid).status())
    return None
