"""Where servers are: one address, a list of them, or a name whose addresses are looked up."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from reelserve.client._exceptions import InvalidArgumentError

SECURE_BY_SCHEME = {"grpc": False, "http": False, "grpcs": True, "https": True}
DEFAULT_PORTS = {"https": 443}
"""Other schemes name no port of their own that a server would listen on."""
DNS = "dns:///"
"""Begins a name every address of which is a server."""
ADDRESS = "it must be host:port, grpc://host:port, grpcs://host:port or https://host[:port]"
MAX_ADDRESSES = 1000
"""Of one client; a connection and a few file descriptors each."""
MAX_PORT = 65535
MAX_HOST_CHARACTERS = 253
"""Of a name in DNS."""
HOST = re.compile(r"[A-Za-z0-9_](?:[A-Za-z0-9_.-]*[A-Za-z0-9_.])?")


@dataclass(frozen=True)
class Address:
    """Where one server is.

    Args:
        shown: What errors call it.
        target: `host:port` for gRPC.
        name: `host:port` that the server goes by and its certificate must name, where that is not
            the target.
    """

    shown: str
    target: str
    name: str | None = None


@dataclass(frozen=True)
class Addresses:
    """What a url says.

    Args:
        shown: What errors call all of them.
        listed: The servers; one that stands for a name to look up where `looked_up`.
        secure: Whether the scheme asks for TLS; None if it leaves that open.
        looked_up: Whether every address of the name in DNS is a server.
    """

    shown: str
    listed: tuple[Address, ...]
    secure: bool | None
    looked_up: bool = False


def read_addresses(url: Any) -> Addresses:
    """Reads an address, several of them between commas or in a sequence, or `dns:///name:port`.

    Raises:
        InvalidArgumentError: If one of them cannot be; the message names it.
    """
    if isinstance(url, Sequence) and not isinstance(url, (str, bytes)):
        entries = list(url)
        if not entries:
            raise InvalidArgumentError(f"url is {url!r}; it must hold at least one address")
    else:
        entries = url.split(",") if isinstance(url, str) else [url]
    if len(entries) > MAX_ADDRESSES:
        raise InvalidArgumentError(
            f"url holds {len(entries)} addresses; it must hold at most {MAX_ADDRESSES}"
        )
    said = "url is" if len(entries) == 1 else "url holds"
    if any(_is_dns(entry) for entry in entries):
        return _read_dns(entries)
    schemes: list[str] = []
    listed: list[Address] = []
    for entry in entries:
        scheme, target = _read_entry(entry, said)
        if schemes and scheme != schemes[0]:
            raise InvalidArgumentError(
                f"url holds {entry!r} beside {entries[0]!r}; all must begin with the same scheme"
            )
        if any(target.lower() == other.target.lower() for other in listed):
            raise InvalidArgumentError(f"url holds {entry!r} twice; it must hold each address once")
        schemes.append(scheme)
        listed.append(Address(entry, target))
    secure = SECURE_BY_SCHEME[schemes[0]] if schemes[0] else None
    return Addresses(", ".join(entries), tuple(listed), secure)


def is_loopback(target: str) -> bool:
    """Whether `host:port` is within this machine."""
    host = target.rpartition(":")[0].strip("[]")
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host.lower().rstrip(".") == "localhost"


def is_host(host: Any) -> bool:
    """Whether something is a name, an IPv4 address, or an IPv6 address in brackets."""
    if not isinstance(host, str):
        return False
    if host.startswith("["):
        try:
            ipaddress.IPv6Address(host[1:-1])
        except ValueError:
            return False
        return True
    return len(host) <= MAX_HOST_CHARACTERS and HOST.fullmatch(host) is not None


def _is_dns(entry: Any) -> bool:
    return isinstance(entry, str) and entry.lower().startswith("dns:")


def _read_dns(entries: list[Any]) -> Addresses:
    form = f"a name to look up is given alone, as {DNS}name:port"
    if len(entries) > 1:
        beside = next(entry for entry in entries if _is_dns(entry))
        raise InvalidArgumentError(f"url holds {beside!r} beside other addresses; {form}")
    (url,) = entries
    if not url.lower().startswith(DNS):
        raise InvalidArgumentError(f"url is {url!r}; {form}")
    target = _checked(url, url[len(DNS) :], None, "url is", form)
    return Addresses(url, (Address(url, target),), None, looked_up=True)


def _read_entry(url: Any, said: str) -> tuple[str, str]:
    """Scheme, empty if there is none, and `host:port`."""
    if not isinstance(url, str):
        raise InvalidArgumentError(f"{said} {url!r}; {ADDRESS}")
    scheme, separator, rest = url.partition("://")
    if not separator:
        scheme, rest = "", url
    elif scheme.lower() not in SECURE_BY_SCHEME:
        known = ", ".join(f"{name}://" for name in SECURE_BY_SCHEME)
        raise InvalidArgumentError(
            f"url has the scheme {scheme!r}; it must be one of {known}, or {DNS}"
        )
    scheme = scheme.lower()
    if "@" in rest:
        # Not shown: what stands before the sign may be a password.
        raise InvalidArgumentError(f"url holds a user or a password; {ADDRESS}, with api_key=…")
    address = rest.removesuffix("/") if scheme else rest
    return scheme, _checked(url, address, DEFAULT_PORTS.get(scheme), said, ADDRESS)


def _checked(url: str, address: str, default_port: int | None, said: str, form: str) -> str:
    """`host:port` of an address that may be one."""
    host, port = _split(address, default_port)
    if not is_host(host):
        raise InvalidArgumentError(f"{said} {url!r}; {form}")
    if port is None or not re.fullmatch("[0-9]+", port) or not 1 <= int(port) <= MAX_PORT:
        raise InvalidArgumentError(
            f"{said} {url!r}; its port must be a number from 1 to {MAX_PORT}: {form}"
        )
    return f"{host}:{int(port)}"


def _split(address: str, default_port: int | None) -> tuple[str, str | None]:
    """Host and port, an IPv6 address in brackets."""
    default = None if default_port is None else str(default_port)
    if address.startswith("[") and "]" in address:
        host, _, rest = address.partition("]")
        return f"{host}]", rest.removeprefix(":") if rest.startswith(":") else rest or default
    host, colon, port = address.partition(":")
    return host, port if colon else default
