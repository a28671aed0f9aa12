"""A TCP relay between a caller and a server that can fall silent, as a link does that was cut."""

from __future__ import annotations

import contextlib
import select
import socket
import threading
from collections.abc import Iterator

CHUNK_BYTES = 65536
LOOK_S = 0.05
"""Longest time until a relay notices that it should be silent, or end."""


class Relay:
    """Passes bytes on, in both directions, until `silence`: then connections stay open and mute.

    Args:
        target: `host:port` of the server.
    """

    def __init__(self, target: str) -> None:
        host, _, port = target.rpartition(":")
        self._target = host.strip("[]"), int(port)
        self._silent, self._ended = threading.Event(), threading.Event()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._listener.settimeout(LOOK_S)
        self.url = f"127.0.0.1:{self._listener.getsockname()[1]}"
        self._threads = [threading.Thread(target=self._accept)]
        self._threads[0].start()

    def silence(self) -> None:
        """Passes nothing on any more on connections that are there; new ones work."""
        self._silent.set()
        self._silent = threading.Event()

    def close(self) -> None:
        """Ends the connections."""
        self._ended.set()
        for thread in self._threads:
            thread.join()
        self._listener.close()

    def _accept(self) -> None:
        while not self._ended.is_set():
            with contextlib.suppress(TimeoutError):
                caller, _ = self._listener.accept()
                thread = threading.Thread(target=self._pass_on, args=(caller, self._silent))
                self._threads.append(thread)
                thread.start()

    def _pass_on(self, caller: socket.socket, silent: threading.Event) -> None:
        with caller, contextlib.suppress(OSError), socket.create_connection(self._target) as server:
            other = {caller: server, server: caller}
            while not self._ended.is_set():
                readable, _, _ = select.select(
                    [] if silent.is_set() else list(other), [], [], LOOK_S
                )
                for one in readable:
                    content = one.recv(CHUNK_BYTES)
                    if not content:
                        return
                    other[one].sendall(content)


@contextlib.contextmanager
def relay(target: str) -> Iterator[Relay]:
    """A relay to the server at `host:port` while the block runs."""
    between = Relay(target)
    try:
        yield between
    finally:
        between.close()
