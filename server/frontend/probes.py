"""The HTTP ports: `/v2/health/live`, `/v2/health/ready` and `/metrics`."""

from __future__ import annotations

import contextlib
import json
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterable
from socketserver import TCPServer
from typing import Any
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server

from prometheus_client import CONTENT_TYPE_LATEST
from prometheus_client.exposition import ThreadingWSGIServer

OK, NOT_FOUND, UNAVAILABLE = "200 OK", "404 Not Found", "503 Service Unavailable"
NOT_ALLOWED = "405 Method Not Allowed"
LONGEST_S = 10.0
"""A connection is cut after so long, whatever came of it."""
MAX_CONNECTIONS = 64
"""Connections at once; one more cuts the oldest."""
MAX_REQUEST_BYTES = 16 * 1024
"""Bytes of a request that are read; what comes after them is not looked at."""
NAME = "reelserve"
"""Told instead of the names and versions of what answers."""

LOOK_S = 0.05
"""Longest time until a server notices that it should end; a stop waits for both, one by one."""

Page = tuple[str, str, bytes]
"""Status, content type and content."""


class ProbeServer:
    """Answers on one port, from threads, so that a busy event loop delays no probe.

    Args:
        host: Address to listen on.
        port: TCP port; 0 takes a free one.
        pages: Path to what gives its page.
        elsewhere: Message for any other path.

    Raises:
        OSError: If the port cannot be had.
    """

    def __init__(
        self, host: str, port: int, pages: dict[str, Callable[[], Page]], elsewhere: str
    ) -> None:
        self._pages, self._elsewhere = pages, elsewhere
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]

        class Server(_BoundedServer):
            address_family = family

        self._server: WSGIServer = make_server(host, port, self._answer, Server, _QuietHandler)
        self.port = int(self._server.server_port)
        self._thread = threading.Thread(
            target=self._server.serve_forever, args=(LOOK_S,), daemon=True
        )
        self._thread.start()

    def close(self) -> None:
        """Stops listening."""
        self._server.shutdown()
        self._server.server_close()

    def _answer(self, environ: dict[str, Any], start: Callable[..., Any]) -> Iterable[bytes]:
        status, kind, content = self._page(environ)
        length = str(len(content))
        start(status, [("Content-Type", kind), ("Content-Length", length), ("Server", NAME)])
        return [b"" if environ["REQUEST_METHOD"] == "HEAD" else content]

    def _page(self, environ: dict[str, Any]) -> Page:
        page = self._pages.get(environ.get("PATH_INFO", ""))
        if page is None:
            return json_page(NOT_FOUND, {"error": self._elsewhere})
        if environ["REQUEST_METHOD"] not in ("GET", "HEAD"):
            return json_page(NOT_ALLOWED, {"error": "only GET and HEAD are answered"})
        return page()


def json_page(status: str, content: object) -> Page:
    """A page of JSON."""
    return status, "application/json", json.dumps(content).encode()


def health(well: bool) -> Page:
    """The page of a probe; empty, as Triton's own."""
    return (OK if well else UNAVAILABLE), "text/plain", b""


def metrics(text: bytes) -> Page:
    """The page of the metrics."""
    return OK, CONTENT_TYPE_LATEST, text


class _BoundedServer(ThreadingWSGIServer):
    """Keeps few connections, and none for long: idle and slow callers cost nobody a probe."""

    daemon_threads = True
    request_queue_size = 128

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        # Oldest first.
        self._connections: dict[Any, float] = {}

    def server_bind(self) -> None:
        """Binds without asking for the name of its address, which takes a dead DNS many seconds."""
        TCPServer.server_bind(self)
        host, port = self.server_address[:2]
        self.server_name, self.server_port = str(host), int(port)
        self.setup_environ()

    def process_request(self, request: Any, client_address: Any) -> None:
        if len(self._connections) >= MAX_CONNECTIONS:
            self._cut(next(iter(tuple(self._connections)), None))
        self._connections[request] = time.monotonic()
        super().process_request(request, client_address)

    def service_actions(self) -> None:
        """Called after every request, and at every look without any."""
        now = time.monotonic()
        for request, began in tuple(self._connections.items()):
            if now - began > LONGEST_S:
                self._cut(request)

    def shutdown_request(self, request: Any) -> None:
        self._connections.pop(request, None)
        super().shutdown_request(request)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Says nothing of connections that break."""
        if not isinstance(sys.exc_info()[1], OSError):
            super().handle_error(request, client_address)

    def _cut(self, request: Any) -> None:
        """Wakes the thread that reads from a connection, and so ends it."""
        self._connections.pop(request, None)
        with contextlib.suppress(OSError, AttributeError):
            request.shutdown(socket.SHUT_RDWR)


class _Head:
    """The beginning of what a connection sends, line by line; then it seems to end."""

    def __init__(self, stream: Any) -> None:
        self._stream, self._left = stream, MAX_REQUEST_BYTES

    def readline(self, limit: int) -> bytes:
        line: bytes = self._stream.readline(min(limit, self._left))
        self._left -= len(line)
        return line

    def close(self) -> None:
        self._stream.close()


class _QuietHandler(WSGIRequestHandler):
    def setup(self) -> None:
        super().setup()
        self.rfile: Any = _Head(self.rfile)

    def version_string(self) -> str:
        """Who answers, in errors."""
        return NAME

    def log_message(self, format: str, *args: Any) -> None:
        """Says nothing: probes come every second."""
