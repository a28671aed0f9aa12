"""Connections to the servers of one client, and which of them a call goes to.

A call goes to the server that has the fewest calls of this client: clips take minutes, so a turn
each would send them to a server that is full while another one is free. gRPC's own balancers know
nothing of that (`ARCHITECTURE.md`). A server is asked by `ServerReady` whether it takes requests
before it gets one, and again when nothing was heard of it for a while; one that does not answer is
asked aside while calls go to the others. A single server is never asked.
"""

from __future__ import annotations

import enum
import logging
import random
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from reelserve.client._addresses import Address
from reelserve.client._channel import Connection
from reelserve.client._exceptions import (
    DeadlineExceededError,
    NoServerError,
    ReelserveError,
    UnavailableError,
    described,
)
from reelserve.client._link import Link
from reelserve.client._names import Lookup

FRESH_S = 10.0
"""A server of which nothing was heard for so long is asked before it gets a call."""
ANSWER_WITHIN_S = 5.0
"""Bound on the answer of a server that is asked, making the connection included."""
PATIENCE_S = 0.25
"""How long a call waits for a server that is being asked while another one could take it."""
ASK_AGAIN_S = 1.0
"""Pause between two questions to a server that is away or takes no requests."""
MAX_FULL_S = 30.0
"""A server counts as full for as long as it asks to wait, and at most for this."""

_log = logging.getLogger(__name__)


class EndpointState(enum.Enum):
    """What is known of a server."""

    UNKNOWN = enum.auto()
    READY = enum.auto()
    NOT_READY = enum.auto()
    AWAY = enum.auto()


@dataclass(eq=False)
class Endpoint:
    """One of the servers, as this client sees it.

    Args:
        link: Connection to it.
        calls: Streams in flight.
        asking: Whether it is being asked.
        asked_at: When it was asked last.
        heard_at: When it was last heard.
        full_until: When it may have a place again.
        away_at: When it was last found to be away.
        reason: Why it is away.
    """

    link: Link
    state: EndpointState = EndpointState.UNKNOWN
    calls: int = 0
    asking: bool = False
    asked_at: float = float("-inf")
    heard_at: float = float("-inf")
    full_until: float = float("-inf")
    away_at: float = float("-inf")
    reason: ReelserveError | None = None

    @property
    def address(self) -> Address:
        """Where it is."""
        return self.link.address

    def is_fresh(self, now: float) -> bool:
        """Whether it takes requests as far as is known."""
        return self.state is EndpointState.READY and now - self.heard_at < FRESH_S


@dataclass
class Round:
    """One try of every server for one request.

    Args:
        began: When it began.
        failures: Servers that were tried, by target, and how that ended.
        answered: Servers that need not be tried.
    """

    began: float = field(default_factory=time.monotonic)
    failures: dict[str, ReelserveError] = field(default_factory=dict)
    answered: set[str] = field(default_factory=set)


class Balancer:
    """The servers of a client. Any thread may call.

    Args:
        connection: Where they are.
        open_link: Makes a connection.
        changed: Called when something has changed, from any thread.
    """

    def __init__(
        self,
        connection: Connection,
        open_link: Callable[[Address], Link],
        changed: Callable[[], None] = lambda: None,
    ) -> None:
        self._connection, self._open_link, self._changed = connection, open_link, changed
        self._lock = threading.Condition()
        self._version = 0
        self._servers: dict[str, Endpoint] = {}
        self._lookup: Lookup | None = None
        if connection.addresses.looked_up:
            self._lookup = Lookup(connection.addresses.listed[0], self._touch)
        else:
            self._take(connection.addresses.listed)

    def close(self) -> list[Link]:
        """Wakes whoever waits; gives the connections, which are the caller's to close."""
        self._touch()
        with self._lock:
            return [server.link for server in self._servers.values()]

    def to_ask(self, one: Round) -> list[Endpoint]:
        """Servers that are to be asked now; they count as asked. Follows the name in DNS, too."""
        with self._lock:
            if self._lookup is not None:
                self._take(self._lookup.addresses())
            servers, now = list(self._servers.values()), time.monotonic()
            if len(servers) < 2 and self._lookup is None:
                return []
            nobody = not any(server.is_fresh(now) for server in servers)
            asked = [server for server in servers if self._is_due(server, one, now, nobody)]
            for server in asked:
                server.asking, server.asked_at = True, now
            return asked

    def choose(self, one: Round) -> Link | float | None:
        """The connection for a call, which counts as begun: `ended` must follow.

        Returns:
            Seconds to wait for a change where it is not yet known; None if nobody is left to try.
        """
        with self._lock:
            found = self._choose(one, time.monotonic())
            if not isinstance(found, Endpoint):
                return found
            found.calls += 1
            return found.link

    def wait(self, seconds: float, version: int) -> None:
        """Waits until something has changed since a version, for a blocking client."""
        with self._lock:
            self._lock.wait_for(lambda: self._version != version, seconds)

    @property
    def version(self) -> int:
        """Grows with every change."""
        return self._version

    def answered(self, server: Endpoint, ready: bool) -> None:
        """A server has said whether it takes requests."""
        with self._lock:
            server.asking = False
            if server.state is EndpointState.AWAY:
                _log.info("%s: answers again", server.address.shown)
            if server.state in (EndpointState.AWAY, EndpointState.NOT_READY):
                server.full_until = float("-inf")
            server.state = EndpointState.READY if ready else EndpointState.NOT_READY
            server.heard_at, server.reason = time.monotonic(), None
        self._touch()

    def unanswered(self, server: Endpoint, reason: ReelserveError) -> None:
        """A server has not answered."""
        with self._lock:
            server.asking = False
            self._leave(server, reason)
        self._touch()

    def unasked(self, server: Endpoint) -> None:
        """The question to a server was cancelled."""
        with self._lock:
            server.asking = False
        self._touch()

    def ended(self, link: Link) -> None:
        """A call on a connection has ended."""
        with self._lock:
            server = self._servers.get(link.address.target)
            if server is not None:
                server.calls = max(0, server.calls - 1)

    def heard(self, link: Link) -> None:
        """Something came on a connection."""
        server = self._servers.get(link.address.target)
        if server is not None:
            server.heard_at = time.monotonic()

    def failed(self, link: Link, failure: ReelserveError) -> None:
        """A call on a connection has failed."""
        with self._lock:
            server = self._servers.get(link.address.target)
            if server is None:
                return
            if isinstance(failure, UnavailableError) and failure.retry_after_s is not None:
                server.full_until = time.monotonic() + min(failure.retry_after_s, MAX_FULL_S)
                # Full, or about to end: it is asked which.
                server.state = EndpointState.UNKNOWN
            elif isinstance(failure, NoServerError):
                self._leave(server, failure)
                if self._lookup is not None:
                    self._lookup.doubt()
        self._touch()

    def renew(self, link: Link) -> None:
        """Uses a connection for no further call; those that are on it go on."""
        with self._lock:
            server = self._servers.get(link.address.target)
            if server is not None and server.link is link:
                server.link = self._open_link(link.address)

    def verdict(self, one: Round) -> ReelserveError:
        """Why no server has taken a request: the shortest wait that one asks for, or nobody."""
        with self._lock:
            reasons = {s.address.target: s.reason for s in self._servers.values()}
            failures = {**{t: r for t, r in reasons.items() if r is not None}, **one.failures}
            if self._lookup is not None and self._lookup.failure is not None and not failures:
                return self._lookup.failure
        refusals = [
            failure
            for failure in failures.values()
            if isinstance(failure, UnavailableError) and failure.retry_after_s is not None
        ]
        if refusals:
            return min(refusals, key=lambda refusal: refusal.retry_after_s or 0.0)
        if len(failures) == 1:
            return next(iter(failures.values()))
        words = f"none of {len(failures)} servers answers: {'; '.join(map(str, failures.values()))}"
        error = NoServerError(f"{self._connection.addresses.shown}: {words}")
        error.not_sent = True
        return error

    def late(self, timeout_s: float) -> ReelserveError:
        """What is said where no server has answered within a call's time."""
        words = f"no server has answered within {timeout_s:g} s"
        return described(DeadlineExceededError, words, self._connection.addresses.shown)

    def _choose(self, one: Round, now: float) -> Endpoint | float | None:
        """As `choose`; the lock is held."""
        tried = one.failures.keys() | one.answered
        left = [server for target, server in self._servers.items() if target not in tried]
        if self._lookup is None and len(self._servers) == 1:
            return left[0] if left else None
        fresh = [server for server in left if server.is_fresh(now)]
        if one.failures:
            # Who has just refused somebody would refuse this one, too.
            fresh = [server for server in fresh if server.full_until <= now]
        # A server that was found to be away since is asked for the sake of later calls.
        asked = [server for server in left if server.asking and server.away_at < one.began]
        hopeful = [server for server in asked if server.state is not EndpointState.AWAY]
        waits = [server.asked_at + PATIENCE_S - now for server in hopeful]
        if fresh and max(waits, default=0.0) <= 0:
            return self._best(fresh, now)
        if fresh:
            return max(waits)
        if asked or (self._lookup is not None and self._lookup.looking):
            return ANSWER_WITHIN_S
        # It says itself why it takes no requests, and when it will.
        unready = [server for server in left if server.state is EndpointState.NOT_READY]
        return self._best(unready, now) if unready else None

    def _take(self, addresses: tuple[Address, ...]) -> None:
        """Follows the addresses: connections to those that have gone get no further call."""
        if addresses and [a.target for a in addresses] != list(self._servers):
            before = self._servers
            self._servers = {
                a.target: before.get(a.target) or Endpoint(self._open_link(a)) for a in addresses
            }

    def _is_due(self, server: Endpoint, one: Round, now: float, nobody: bool) -> bool:
        if server.asking or server.is_fresh(now):
            return False
        if server.state in (EndpointState.UNKNOWN, EndpointState.READY):
            return True
        pause_over = now - server.asked_at >= ASK_AGAIN_S
        return pause_over or (nobody and server.asked_at < one.began)

    def _best(self, servers: list[Endpoint], now: float) -> Endpoint:
        def rank(server: Endpoint) -> tuple[bool, int, float]:
            return server.full_until > now, server.calls, random.random()

        return min(servers, key=rank)

    def _leave(self, server: Endpoint, reason: ReelserveError) -> None:
        if server.state is not EndpointState.AWAY:
            _log.info("%s", reason)
        server.state, server.reason, server.away_at = EndpointState.AWAY, reason, time.monotonic()

    def _touch(self) -> None:
        with self._lock:
            self._version += 1
            self._lock.notify_all()
        self._changed()
