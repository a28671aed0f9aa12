"""Options of `reelserve serve` that say who may call."""

from __future__ import annotations

import argparse
from pathlib import Path

from reelserve.server.frontend.api_keys import ApiKeys
from reelserve.server.frontend.doors import Doors
from reelserve.server.frontend.reloaded import DoorError
from reelserve.server.frontend.tls import ServerTls
from reelserve.server.launch.tritons import ServeOptions

FILES = {
    "tls-cert": "certificate of the gRPC port, PEM; read again when it changes",
    "tls-key": "private key of that certificate, PEM, without a passphrase",
    "tls-client-ca": "authorities that must have signed callers' certificates, PEM",
    "api-keys": "keys of callers, as `reelserve key` writes them; read again when it changes",
}


def add_door_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the options."""
    group = parser.add_argument_group("who may call")
    for name, text in FILES.items():
        group.add_argument(f"--{name}", type=Path, metavar="FILE", help=text)
    group.add_argument(
        "--allow-anonymous",
        action="store_true",
        help="listen beyond this machine without keys: whoever reaches the port may draw clips",
    )


def doors_of(options: ServeOptions) -> Doors:
    """How the public port is closed.

    Raises:
        DoorError: If an option lacks another one, or a file cannot be used.
    """
    cert, key, client_ca = options.tls_cert, options.tls_key, options.tls_client_ca
    tls = None
    if cert is not None and key is not None:
        tls = ServerTls(cert, key, client_ca)
    elif any(file is not None for file in (cert, key, client_ca)):
        missing = "--tls-cert" if cert is None else "--tls-key"
        raise DoorError(f"{missing} is missing; TLS needs --tls-cert and --tls-key")
    keys = None if options.api_keys is None else ApiKeys(options.api_keys)
    return Doors(tls, keys, options.allow_anonymous)
