"""The HTTP ports: `/v2/health/live`, `/v2/health/ready` and `/metrics`."""

from __future__ import annotations

import contextlib
import json
import socket
import threading
from collections.abc import Callable, Iterable
from socketserver import TCPServer
from typing import Any
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server

from prometheus_client import CONTENT_TYPE_LATEST
from prometheus_client.exposition import ThreadingWSGIServer

OK, NOT_FOUND, UNAVAILABLE = "200 OK", "404 Not Found", "503 Service Unavailable"
NOT_ALLOWED = "405 Method Not Allowed"
MAX_CONNECTIONS = 64
"""Open connections of one port; a probe and a scraper need one each."""
READ_TIMEOUT_S = 10
"""A connection that sends no request for so long is closed."""

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
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Stops listening."""
        self._server.shutdown()
        self._server.server_close()

    def _answer(self, environ: dict[str, Any], start: Callable[..., Any]) -> Iterable[bytes]:
        status, kind, content = self._page(environ)
        start(status, [("Content-Type", kind), ("Content-Length", str(len(content)))])
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
    """Keeps a bounded number of connections: a new one ends the oldest when there are more."""

    daemon_threads = True
    # Callers that came at once and found no room in the queue would try again after a second.
    request_queue_size = MAX_CONNECTIONS

    def __init__(self, *arguments: Any, **options: Any) -> None:
        self._open: dict[int, socket.socket] = {}
        self._lock = threading.Lock()
        super().__init__(*arguments, **options)

    def server_bind(self) -> None:
        """Binds without asking for the name of its address, which takes a dead DNS many seconds."""
        TCPServer.server_bind(self)
        host, port = self.server_address[:2]
        self.server_name, self.server_port = str(host), int(port)
        self.setup_environ()

    def process_request(self, request: Any, client_address: Any) -> None:
        """Hands a connection to a thread of its own."""
        with self._lock:
            oldest = next(iter(self._open.values())) if len(self._open) >= MAX_CONNECTIONS else None
            self._open[id(request)] = request
            if oldest is not None:
                with contextlib.suppress(OSError):
                    # Its thread reads the end and closes it.
                    oldest.shutdown(socket.SHUT_RDWR)
                self._open.pop(id(oldest), None)
        super().process_request(request, client_address)

    def shutdown_request(self, request: Any) -> None:
        """Closes a connection that was answered."""
        with self._lock:
            self._open.pop(id(request), None)
        super().shutdown_request(request)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Says nothing: a caller that breaks its connection must not write our log."""


class _QuietHandler(WSGIRequestHandler):
    timeout = READ_TIMEOUT_S

    def log_message(self, format: str, *args: Any) -> None:
        """Says nothing: probes come every second."""
