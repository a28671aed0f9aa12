"""How servers are reached: TLS, headers, the gRPC channel."""

from __future__ import annotations

import os
import re
import ssl
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc

from reelserve.client._addresses import (
    Address,
    Addresses,
    is_host,
    is_loopback,
    read_addresses,
)
from reelserve.client._exceptions import InvalidArgumentError

HEADER_NAME = re.compile(r"[0-9a-z_.-]+")
VISIBLE = re.compile(r"[\x20-\x7e]+")
KEY = re.compile(r"[\x21-\x7e]+")
AUTHORIZATION = "authorization"
ROOTS = ("/etc/ssl/certs/ca-certificates.crt", "/etc/pki/tls/certs/ca-bundle.crt")
"""Where Linux distributions keep what an OpenSSL that was built elsewhere does not find."""
UNLIMITED = -1
HTTP_PROXY = "grpc.enable_http_proxy"
MAX_RECONNECT_BACKOFF_MS = 2000
"""Longest wait between two attempts to reach one of several servers; gRPC's own is two minutes, in
which a server that is back would stay unused."""

Metadata = tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class TlsOptions:
    """How a server is known to be the right one, and this client to it.

    Args:
        ca_file: PEM file of the authorities that may have signed the server's certificate; the
            system's if left out.
        cert_file: PEM file of this client's certificate, for servers that ask for one.
        key_file: PEM file of its private key, without a passphrase.
        server_name: Name in the server's certificate, where it is not the host of the url.

    Raises:
        InvalidArgumentError: If a file cannot be used.
    """

    ca_file: str | os.PathLike[str] | None = None
    cert_file: str | os.PathLike[str] | None = None
    key_file: str | os.PathLike[str] | None = None
    server_name: str | None = None

    def __post_init__(self) -> None:
        for name in ("ca_file", "cert_file", "key_file"):
            file = getattr(self, name)
            if file is not None and not isinstance(file, (str, os.PathLike)):
                raise InvalidArgumentError(f"{name} is {file!r}; it must be the path of a PEM file")
        if (self.cert_file is None) != (self.key_file is None):
            given, missing = ("cert_file", "key_file")
            if self.cert_file is None:
                given, missing = missing, given
            raise InvalidArgumentError(f"{missing} is missing; {given} needs it beside it")
        if self.server_name is not None and not is_host(self.server_name):
            raise InvalidArgumentError(
                f"server_name is {self.server_name!r}; it must be the name of a host"
            )
        # Broken files otherwise show as a server that nobody reaches.
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        if self.ca_file is not None:
            _use("ca_file", self.ca_file, lambda file: context.load_verify_locations(file))
        if self.cert_file is not None and self.key_file is not None:
            key = os.fspath(self.key_file)
            _read("key_file", key)
            # An empty password, so that nobody is asked for one on the terminal.
            _use("cert_file", self.cert_file, lambda file: context.load_cert_chain(file, key, ""))

    def credentials(self) -> grpc.ChannelCredentials:
        """What gRPC takes."""
        roots = system_roots() if self.ca_file is None else _read("ca_file", self.ca_file)
        key = None if self.key_file is None else _read("key_file", self.key_file)
        chain = None if self.cert_file is None else _read("cert_file", self.cert_file)
        return grpc.ssl_channel_credentials(roots, key, chain)


@dataclass(frozen=True)
class Connection:
    """Where servers are and what every call to them carries.

    Args:
        addresses: As the url says them.
        tls: None for plain text.
        metadata: Headers of every call; their values may be secrets.
    """

    addresses: Addresses
    tls: TlsOptions | None
    metadata: Metadata = field(repr=False)

    @property
    def several(self) -> bool:
        """Whether there may be more servers than one."""
        return self.addresses.looked_up or len(self.addresses.listed) > 1

    def arguments(self, address: Address) -> list[tuple[str, Any]]:
        """Options of the gRPC channel to a server."""
        arguments: list[tuple[str, Any]] = [*channel_arguments(address.target)]
        if self.several:
            arguments.append(("grpc.max_reconnect_backoff_ms", MAX_RECONNECT_BACKOFF_MS))
        server_name = None if self.tls is None else self.tls.server_name
        if address.name is not None:
            # Its addresses are in no list of names that a proxy is to be left out for.
            arguments = [one for one in arguments if one[0] != HTTP_PROXY] + [(HTTP_PROXY, 0)]
            arguments.append(("grpc.default_authority", address.name))
            server_name = server_name or address.name.rpartition(":")[0]
        if self.tls is not None and server_name is not None:
            arguments.append(("grpc.ssl_target_name_override", server_name))
        return arguments

    def open(self, channels: Any, address: Address) -> Any:
        """Opens a channel to a server; nothing is sent yet.

        Args:
            channels: `grpc` or `grpc.aio`, which make channels of their own kind.
            address: One of the servers.
        """
        options = self.arguments(address)
        if self.tls is None:
            return channels.insecure_channel(address.target, options=options)
        return channels.secure_channel(address.target, self.tls.credentials(), options=options)


def connection(
    url: str | Sequence[str],
    tls: TlsOptions | None = None,
    headers: Mapping[str, str] | None = None,
    api_key: str | None = None,
) -> Connection:
    """Reads addresses and what goes with them.

    Raises:
        InvalidArgumentError: If anything is not what it must be, or the key would be sent in
            plain text over a network.
    """
    addresses = read_addresses(url)
    if tls is not None and not isinstance(tls, TlsOptions):
        raise InvalidArgumentError(f"tls is {tls!r}; it must be a TlsOptions")
    if tls is not None and addresses.secure is False:
        raise InvalidArgumentError(
            f"url is {url!r}, which is plain text, and tls is given; it must begin with grpcs://"
        )
    if tls is None and addresses.secure:
        tls = TlsOptions()
    for address in addresses.listed:
        if api_key is not None and tls is None and not is_loopback(address.target):
            raise InvalidArgumentError(
                f"api_key would be sent in plain text to {address.target}; use grpcs:// or "
                "tls=TlsOptions()"
            )
    return Connection(addresses, tls, _metadata(headers, api_key))


def channel_arguments(target: str) -> list[tuple[str, int]]:
    """Options of every gRPC channel to `host:port`."""
    arguments = [
        # A clip is larger than gRPC's default of 4 MiB.
        ("grpc.max_send_message_length", UNLIMITED),
        ("grpc.max_receive_message_length", UNLIMITED),
        # A connection of its own: channels that share one share its end, too, by a fork or a cut.
        ("grpc.use_local_subchannel_pool", 1),
    ]
    if is_loopback(target):
        # gRPC takes https_proxy for this machine's own addresses too, unless no_proxy lists them.
        arguments.append((HTTP_PROXY, 0))
    return arguments


def system_roots() -> bytes | None:
    """Certificates of the authorities that this machine trusts; None for gRPC's own list."""
    for file in (ssl.get_default_verify_paths().cafile, *ROOTS):
        if file is not None and os.path.isfile(file):
            return Path(file).read_bytes()
    return None


def _metadata(headers: Mapping[str, str] | None, api_key: str | None) -> Metadata:
    pairs: dict[str, str] = {}
    if headers is not None and not isinstance(headers, Mapping):
        raise InvalidArgumentError("headers must be a dictionary of names and values")
    for name, value in (headers or {}).items():
        key = name.lower() if isinstance(name, str) else ""
        if not HEADER_NAME.fullmatch(key) or key.startswith("grpc-") or key.endswith("-bin"):
            raise InvalidArgumentError(
                f"headers holds the name {name!r}; it must be of letters, digits, '-', '_' and "
                "'.', and neither begin with grpc- nor end with -bin"
            )
        if not isinstance(value, str) or not VISIBLE.fullmatch(value):
            # Not shown: it may be a secret.
            raise InvalidArgumentError(
                f"headers[{name!r}] has a value that is not visible ASCII characters"
            )
        pairs[key] = value
    if api_key is not None:
        if not isinstance(api_key, str) or not KEY.fullmatch(api_key):
            raise InvalidArgumentError(
                "api_key must be visible ASCII characters without spaces, at least 1"
            )
        if AUTHORIZATION in pairs:
            raise InvalidArgumentError(
                "headers holds 'authorization' and api_key is given; it must be one of them"
            )
        pairs[AUTHORIZATION] = f"Bearer {api_key}"
    return tuple(pairs.items())


def _read(name: str, file: str | os.PathLike[str]) -> bytes:
    try:
        return Path(file).read_bytes()
    except (OSError, ValueError) as error:
        # `ValueError` is what a null character gives.
        reason = getattr(error, "strerror", None) or error
        raise InvalidArgumentError(
            f"{name} is {os.fspath(file)!r}, which cannot be read: {reason}"
        ) from None


def _use(name: str, file: str | os.PathLike[str], load: Any) -> None:
    _read(name, file)
    try:
        load(os.fspath(file))
    except (ssl.SSLError, ValueError) as error:
        reason = getattr(error, "reason", None) or error
        beside = " with its key_file" if name == "cert_file" else ""
        raise InvalidArgumentError(
            f"{name} is {os.fspath(file)!r}, which cannot be used{beside}: {reason}; it must be "
            "a PEM file"
        ) from None


def described_headers(metadata: Sequence[tuple[str, str]]) -> str:
    """Names of headers; their values may be secrets."""
    return "{" + ", ".join(f"{name!r}: '***'" for name, _ in metadata) + "}"
