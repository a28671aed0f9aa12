"""API keys: who may call, and how many clips of each may be in flight.

A line of the file is `NAME LIMIT HASH`: the caller's name, its clips in flight, and the SHA-256 of
the key in hexadecimal. A plain hash is enough because `new_key` draws 256 random bits.
"""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from reelserve.server.frontend.reloaded import OptionFile, Reloaded

PREFIX = "rsk_"
"""Begins every key, so that tools that look for leaked secrets know one."""
KEY_BYTES = 32
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}")
NAME_RULE = "1 to 64 letters, digits, '_', '.' and '-', the first a letter or a digit"
MAX_LIMIT = 1_000_000
MAX_KEYS = 1000
"""Keys in a file; each call is compared with all of them."""
HASH = re.compile(r"[0-9a-fA-F]{64}")


@dataclass(frozen=True)
class KeyHolder:
    """Who holds a key.

    Args:
        name: As in the file.
        max_in_flight: Its clips in flight, 1 to `MAX_LIMIT`.
    """

    name: str
    max_in_flight: int


class KeyTable:
    """The callers by the hashes of their keys.

    Args:
        callers: SHA-256 of each key, and who holds it.
    """

    def __init__(self, callers: Mapping[bytes, KeyHolder]) -> None:
        self._callers = tuple(callers.items())

    def caller(self, key: str) -> KeyHolder | None:
        """Who holds a key; None for one that is not known, or that is empty.

        Every hash is compared, each in a time that does not depend on where it differs.
        """
        presented, found = hash_of(key), None
        for known, caller in self._callers:
            if hmac.compare_digest(known, presented):
                found = caller
        return found if key else None


class ApiKeys:
    """The file of `--api-keys`, read again when it changes.

    Args:
        path: The file.

    Raises:
        DoorError: If it cannot be used.
    """

    def __init__(self, path: Path) -> None:
        self._file = OptionFile("--api-keys", path)
        self._reloaded = Reloaded({"keys": self._file}, self._parse)

    def look(self) -> None:
        """Reads the file again; calls that begin from now on see what has changed."""
        self._reloaded.look()

    def caller(self, key: str) -> KeyHolder | None:
        """Who holds a key; None for one that is not known."""
        return self._reloaded.value.caller(key)

    def _parse(self, contents: Mapping[str, bytes]) -> KeyTable:
        callers: dict[bytes, KeyHolder] = {}
        limits: dict[str, int] = {}
        lines = contents["keys"].decode("utf-8", "replace").splitlines()
        for number, line in enumerate(lines, 1):
            text = line.strip()
            if not text or text.startswith("#"):
                continue
            try:
                digest, caller = read_line(text)
                if digest in callers:
                    raise ValueError("its key is there already")
                if limits.setdefault(caller.name, caller.max_in_flight) != caller.max_in_flight:
                    raise ValueError(f"{caller.name} has another limit on a line before")
            except ValueError as error:
                raise self._file.error(f"cannot be used: line {number}: {error}") from None
            callers[digest] = caller
        if not 1 <= len(callers) <= MAX_KEYS:
            raise self._file.error(f"holds {len(callers)} keys; the limits are 1 to {MAX_KEYS}")
        return KeyTable(callers)


def read_line(text: str) -> tuple[bytes, KeyHolder]:
    """Reads a line that is not empty.

    Raises:
        ValueError: If it is not what it must be. The line itself is not shown: somebody may have
            put a key there.
    """
    parts = text.split()
    if len(parts) != 3:
        raise ValueError(f"it has {len(parts)} words; it must be NAME LIMIT HASH")
    name, limit, digest = parts
    check_name(name)
    max_in_flight = read_limit(limit)
    if not HASH.fullmatch(digest):
        raise ValueError("HASH must be a SHA-256 in hexadecimal, 64 digits")
    return bytes.fromhex(digest), KeyHolder(name, max_in_flight)


def check_name(name: str) -> str:
    """A caller's name, which comes into logs and errors.

    Raises:
        ValueError: If it cannot be one.
    """
    if not NAME.fullmatch(name):
        raise ValueError(f"NAME must be {NAME_RULE}")
    return name


def read_limit(text: str) -> int:
    """A caller's clips in flight.

    Raises:
        ValueError: If it cannot be a limit.
    """
    digits = text.isascii() and text.isdigit() and len(text) <= len(str(MAX_LIMIT))
    if not digits or not 1 <= int(text) <= MAX_LIMIT:
        raise ValueError(f"LIMIT must be a number of clips in flight from 1 to {MAX_LIMIT}")
    return int(text)


def new_key() -> str:
    """A key that nobody guesses."""
    return PREFIX + secrets.token_urlsafe(KEY_BYTES)


def hash_of(key: str) -> bytes:
    """SHA-256 of a key."""
    return hashlib.sha256(key.encode("utf-8", "surrogatepass")).digest()


def key_line(caller: KeyHolder, key: str) -> str:
    """The line of the file for a key."""
    return f"{caller.name} {caller.max_in_flight} {hash_of(key).hex()}"
