"""Addresses of a name in DNS, looked up aside so that no call waits for a slow resolver."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable

from reelserve.client._addresses import Address
from reelserve.client._exceptions import NoServerError, described

LOOK_AGAIN_S = 10.0
"""Age at which addresses are looked up anew, by the next call."""
LOOK_SOON_S = 1.0
"""The same after a server has not answered."""


class Lookup:
    """Every address of a name.

    Args:
        name: The name; its target is `name:port`.
        changed: Called after every look, from a thread.
    """

    def __init__(self, name: Address, changed: Callable[[], None]) -> None:
        self._name, self._changed = name, changed
        self._found: tuple[Address, ...] = ()
        self._looking, self._looked_at, self._period_s = False, float("-inf"), 0.0
        self.failure: NoServerError | None = None
        """Why the last look found nothing; what was found before is kept."""

    def addresses(self) -> tuple[Address, ...]:
        """What is known; looks anew where that is old."""
        if not self._looking and time.monotonic() - self._looked_at >= self._period_s:
            self._looking = True
            threading.Thread(target=self._look, name="reelserve-dns", daemon=True).start()
        return self._found

    @property
    def looking(self) -> bool:
        """Whether a look is on its way."""
        return self._looking

    def doubt(self) -> None:
        """A server has not answered: the name may have other addresses by now."""
        self._period_s = LOOK_SOON_S

    def _look(self) -> None:
        host, _, port = self._name.target.rpartition(":")
        try:
            rows = socket.getaddrinfo(host.strip("[]"), int(port), type=socket.SOCK_STREAM)
            found = sorted({str(row[4][0]) for row in rows})
            period_s = LOOK_AGAIN_S
        except (OSError, UnicodeError) as error:
            period_s = LOOK_SOON_S
            words = f"the name has no address: {getattr(error, 'strerror', None) or error}"
            failure = described(NoServerError, words, self._name.shown)
            failure.not_sent = True
            self.failure = failure
        else:
            self._found, self.failure = tuple(self._address(ip, port) for ip in found), None
        self._looked_at, self._period_s, self._looking = time.monotonic(), period_s, False
        self._changed()

    def _address(self, ip: str, port: str) -> Address:
        target = f"[{ip}]:{port}" if ":" in ip else f"{ip}:{port}"
        return Address(f"{self._name.shown} ({target})", target, self._name.target)
