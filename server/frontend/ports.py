"""Addresses to listen on, and why one cannot be had."""

from __future__ import annotations

import errno
import os
import socket

import psutil


class PortError(RuntimeError):
    """A port cannot be listened on; the message names it, and who has it where that is seen."""


def address(host: str, port: int) -> str:
    """`host:port`, an IPv6 address in brackets."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def listening_address(host: str, port: int) -> str:
    """The numeric address of a host on which a port can be listened on; 0 is any port.

    gRPC's own error does not say why, and each library would pick another one of a name's
    addresses.

    Args:
        host: Name or address.
        port: TCP port.

    Raises:
        PortError: If there is none.
    """
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except OSError as error:
        raise port_error(host, port, error) from None
    except UnicodeError:
        raise PortError(
            f"cannot listen on {address(host, port)}: it is no name of a host"
        ) from None
    failure = OSError(errno.EADDRNOTAVAIL, os.strerror(errno.EADDRNOTAVAIL))
    for family, kind, protocol, _, where in found:
        try:
            with socket.socket(family, kind, protocol) as probe:
                # As gRPC binds: a port whose last connection is just closing counts as free.
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                probe.bind(where)
                probe.listen()
        except OSError as error:
            failure = error
        else:
            return str(where[0])
    raise port_error(host, port, failure)


def port_error(host: str, port: int, error: OSError) -> PortError:
    """Says why a port cannot be had, and which process has it."""
    words = f"cannot listen on {address(host, port)}: {error.strerror or error}"
    if error.errno == errno.EADDRINUSE:
        words += _held_by(port)
    return PortError(words)


def _held_by(port: int) -> str:
    """The process that listens on a port, in brackets; empty where it is not visible."""
    try:
        for connection in psutil.net_connections("tcp"):
            listens = connection.status == psutil.CONN_LISTEN and connection.laddr.port == port
            if listens and connection.pid == os.getpid():
                return " (by this server itself: its ports must differ)"
            if listens and connection.pid is not None:
                name = psutil.Process(connection.pid).name()
                return f" (by {name}, process {connection.pid})"
    except (psutil.Error, OSError):
        # Another user's, or one of another container.
        pass
    return ""
