"""The processes of a server's stages, as Linux shows them.

Triton does not start a stage's process again when it has died (seen with 2.51): every request
that needs it fails from then on, while the server still says that it is ready.
"""

from __future__ import annotations

import contextlib
from pathlib import Path

PROC = Path("/proc")
STUB = "triton_python_backend_stub"
INSTANCE_ENDING = "_0_0"
"""Of the name of a stage's only instance, an argument of its process."""


def stage_processes(server: int) -> dict[str, int]:
    """Stage to process id, of the `tritonserver` with process id `server`.

    A process that has died is left out.
    """
    stages = {}
    for children in PROC.glob(f"{server}/task/*/children"):
        with contextlib.suppress(OSError):
            for pid in map(int, children.read_text().split()):
                stage = _stage(pid)
                if stage is not None:
                    stages[stage] = pid
    return stages


def _stage(pid: int) -> str | None:
    with contextlib.suppress(OSError):
        # Empty for a process that has died and was not yet waited for.
        arguments = (PROC / str(pid) / "cmdline").read_text().split("\0")
        if STUB in arguments[0]:
            for argument in arguments:
                if argument.endswith(INSTANCE_ENDING):
                    return argument.removesuffix(INSTANCE_ENDING)
    return None
