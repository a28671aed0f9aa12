"""Command-line options and environment variables that say how a server is reached."""

from __future__ import annotations

import argparse
import os
from typing import Any

from reelserve.client._base import DEFAULT_URL
from reelserve.client._channel import TlsOptions
from reelserve.client._exceptions import InvalidArgumentError

SERVER_VARIABLE = "REELSERVE_SERVER"
API_KEY_VARIABLE = "REELSERVE_API_KEY"
FILE_OPTIONS = {
    "ca_file": "authorities that may have signed the server's certificate",
    "cert_file": "this client's certificate",
    "key_file": "private key of that certificate",
}
"""PEM files; the variable of each is `REELSERVE_` and its name."""


def add_connection_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the address of a server, TLS, headers and the file of an API key."""
    group = parser.add_argument_group(
        "connection", f"{API_KEY_VARIABLE} holds an API key; on a command line others could read it"
    )
    add = group.add_argument
    add(
        "--server",
        default=os.environ.get(SERVER_VARIABLE) or DEFAULT_URL,
        metavar="URL",
        help="host:port, or grpcs://host:port for TLS; several with commas between them, or "
        f"dns:///name:port; {SERVER_VARIABLE} sets the default (%(default)s)",
    )
    add("--tls", action="store_true", help="use TLS; every file below and grpcs:// do so too")
    for name, meaning in FILE_OPTIONS.items():
        variable = f"REELSERVE_{name.upper()}"
        add(
            f"--{name.replace('_', '-')}",
            default=os.environ.get(variable),
            metavar="FILE",
            help=f"{meaning}, PEM; {variable} sets the default",
        )
    add("--server-name", metavar="NAME", help="name in the server's certificate, if another one")
    add(
        "--header",
        action="append",
        default=[],
        dest="headers",
        metavar="'NAME: VALUE'",
        help="sent with every call; may be repeated",
    )
    add("--api-key-file", metavar="FILE", help="file that holds an API key and nothing else")


def client_settings(arguments: argparse.Namespace) -> dict[str, Any]:
    """Arguments for `Client` from what `add_connection_arguments` read, and the environment.

    Raises:
        InvalidArgumentError: If one of them cannot be; the message names it.
    """
    settings = {name: getattr(arguments, name) or None for name in (*FILE_OPTIONS, "server_name")}
    tls = TlsOptions(**settings) if arguments.tls or any(settings.values()) else None
    headers = dict(_header(text) for text in arguments.headers)
    api_key = os.environ.get(API_KEY_VARIABLE) or None
    if arguments.api_key_file is not None:
        api_key = _key(arguments.api_key_file)
    return {"url": arguments.server, "tls": tls, "headers": headers, "api_key": api_key}


def _header(text: str) -> tuple[str, str]:
    name, colon, value = text.partition(":")
    if not colon:
        # Not shown whole: it may be a secret.
        raise InvalidArgumentError("a --header has no colon; it must be 'NAME: VALUE'")
    return name.strip(), value.strip()


def _key(file: str) -> str:
    try:
        with open(file, encoding="ascii") as opened:
            return opened.read().strip()
    except OSError as error:
        raise InvalidArgumentError(
            f"--api-key-file is {file}, which cannot be read: {error.strerror}"
        ) from None
    except UnicodeDecodeError:
        raise InvalidArgumentError(
            f"--api-key-file is {file}, which does not hold ASCII characters alone"
        ) from None
