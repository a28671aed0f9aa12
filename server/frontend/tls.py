"""TLS of the public gRPC port; certificates may be replaced while it serves."""

from __future__ import annotations

import contextlib
import os
import secrets
import ssl
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import grpc

from reelserve.server.frontend.reloaded import OptionFile, Reloaded

CERT, KEY, CLIENT_CA = "cert", "key", "client_ca"


class ServerTls:
    """Certificate and key of a server, and the authorities of its callers.

    Args:
        cert: PEM file of the certificate, followed by those between it and its authority.
        key: PEM file of the private key, without a passphrase.
        client_ca: PEM file of the authorities that must have signed a caller's certificate; None
            asks callers for none.

    Raises:
        DoorError: If a file cannot be used.
    """

    def __init__(self, cert: Path, key: Path, client_ca: Path | None = None) -> None:
        self.asks_callers = client_ca is not None
        self._files = {CERT: OptionFile("--tls-cert", cert), KEY: OptionFile("--tls-key", key)}
        if client_ca is not None:
            self._files[CLIENT_CA] = OptionFile("--tls-client-ca", client_ca)
        self._reloaded = Reloaded(self._files, self._configuration)
        self._given = self._reloaded.value

    def look(self) -> None:
        """Reads the files again; connections made from now on see what has changed."""
        self._reloaded.look()

    def credentials(self) -> Any:
        """What gRPC takes."""
        return grpc.dynamic_ssl_server_credentials(self._given, self._changed, self.asks_callers)

    def _changed(self) -> Any:
        """Called by gRPC before every handshake: a new configuration, or None for the last one."""
        newest = self._reloaded.value
        if newest is self._given:
            return None
        self._given = newest
        return newest

    def _configuration(self, contents: Mapping[str, bytes]) -> Any:
        for name in contents.keys() - {KEY}:
            _check_certificates(self._files[name], contents[name])
        self._check_pair(contents[CERT], contents[KEY])
        pairs, roots = [(contents[KEY], contents[CERT])], contents.get(CLIENT_CA)
        self._check_by_grpc(grpc.ssl_server_credentials(pairs, roots, self.asks_callers))
        return grpc.ssl_server_certificate_configuration(pairs, roots)

    def _check_pair(self, cert: bytes, key: bytes) -> None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        with _as_file(cert) as cert_file, _as_file(key) as key_file:
            try:
                # An empty password, so that nobody is asked for one on the terminal.
                context.load_cert_chain(cert_file, key_file, "")
            except ssl.SSLError as error:
                beside = self._files[CERT]
                if error.reason == "KEY_VALUES_MISMATCH":
                    problem = f"does not fit {beside.option} {beside.path}"
                else:
                    reason = error.reason or error
                    problem = (
                        f"cannot be used with {beside.option} {beside.path}: {reason}; it must be "
                        "a private key in PEM without a passphrase"
                    )
                raise self._files[KEY].error(problem) from None

    def _check_by_grpc(self, credentials: Any) -> None:
        """Tries them on a server that nobody reaches: gRPC takes fewer kinds of keys."""
        trial = grpc.server(ThreadPoolExecutor(1))
        try:
            trial.add_secure_port(f"unix-abstract:reelserve-{secrets.token_hex(16)}", credentials)
        except RuntimeError:
            cert = self._files[CERT]
            raise cert.error(
                f"gRPC does not take with {self._files[KEY].option} {self._files[KEY].path}; use a "
                "key of RSA or of the elliptic curve P-256"
            ) from None
        finally:
            trial.stop(None)


def _check_certificates(file: OptionFile, content: bytes) -> None:
    """Refuses a file that holds no certificate, or a damaged one."""
    try:
        text = content.decode("ascii", "replace")
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_verify_locations(cadata=text)
    except (ssl.SSLError, ValueError) as error:
        reason = getattr(error, "reason", None) or "there is no certificate in it"
        raise file.error(f"cannot be used: {reason}; it must be certificates in PEM") from None


@contextlib.contextmanager
def _as_file(content: bytes) -> Iterator[str]:
    """A name of these bytes, for who takes files alone; nothing is written to a disk."""
    descriptor = os.memfd_create("reelserve", os.MFD_CLOEXEC)
    with open(descriptor, "wb") as file:
        file.write(content)
        file.flush()
        yield f"/proc/self/fd/{descriptor}"
