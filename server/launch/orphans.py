"""Waits for processes that were handed to this one because their parent has died.

The kernel hands them to process 1 of a PID namespace, which in a container without an init is the
server. Until somebody waits for them they stay in the table of processes as zombies: stages of a
Triton that died, and what a probe run inside the container has left behind.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Container

INIT = 1
"""Process id of who gets orphans."""
LOOK_S = 0.5


async def keep_reaping(own: Callable[[], Container[int]]) -> None:
    """Waits for orphans as long as it runs; returns at once where this process gets none.

    Args:
        own: Gives the ids of the children that this process waits for itself.
    """
    while os.getpid() == INIT:
        reap(own())
        await asyncio.sleep(LOOK_S)


def reap(own: Container[int]) -> None:
    """Waits for children that have ended; one of `own` may hide others until it was waited for."""
    while (pid := _ended_child()) and pid not in own:
        os.waitpid(pid, 0)


def _ended_child() -> int:
    """A child that has ended and that nobody has waited for; 0 if there is none."""
    try:
        found = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
    except ChildProcessError:
        return 0
    return found.si_pid if found else 0
