"""Tells systemd, or whatever else sets NOTIFY_SOCKET, what the server does: `Type=notify`."""

from __future__ import annotations

import contextlib
import os
import socket

READY, STOPPING = "READY=1", "STOPPING=1"
VARIABLE = "NOTIFY_SOCKET"


def tell(state: str) -> None:
    """Tells the service manager a state; does nothing where there is none, or where it is gone.

    Args:
        state: Lines of `sd_notify(3)`.
    """
    path = os.environ.get(VARIABLE, "")
    if not path.startswith(("/", "@")):
        return
    # The name of an abstract socket begins with a zero byte, which no variable can hold.
    name = "\0" + path[1:] if path.startswith("@") else path
    with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.sendto(state.encode(), name)
