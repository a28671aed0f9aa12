"""One client of two servers, which are replaced, or of which one dies."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

from reelserve.client import Client, GenerateOptions, ReelserveError
from reelserve.pipeline.contract import PUBLIC_MODEL
from reelserve.server.launch.running_server import Server
from reelserve.server.launch.tritons import ServeOptions
from reelserve.tools.faults.fault import Fault, Trial, all_among, counted
from reelserve.tools.faults.load import (
    ANSWER_TIMEOUT_S,
    CLIP,
    CLIP_OUTCOME,
    NOTHING,
    OTHER_CLIP,
    POLL_S,
    draw,
    error_outcome,
)

CALLERS = 6
"""More than one server draws together, and fewer than either has places."""
SHORT_CLIP: GenerateOptions = {**CLIP, "num_inference_steps": 4}
"""Many of them end, and some are in flight whenever something happens."""


@dataclass
class ConstantLoad:
    """Callers that ask for the next clip as soon as they have one.

    Args:
        client: Shared by all.
        reference: The right clip.
        clip: What each asks for.
    """

    client: Client
    reference: bytes
    clip: GenerateOptions
    seen: Counter[str] = field(default_factory=Counter)
    """Outcomes so far."""
    _ended: threading.Event = field(default_factory=threading.Event)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def call(self) -> None:
        """What one caller does until the load ends."""
        while not self._ended.is_set():
            try:
                same = draw(self.client, self.clip) == self.reference
                outcome = CLIP_OUTCOME if same else OTHER_CLIP
            except ReelserveError as error:
                outcome = error_outcome(error)
            with self._lock:
                self.seen[outcome] += 1

    def end(self) -> None:
        """Lets callers end with the clip that they wait for."""
        self._ended.set()


@contextmanager
def constant_load(
    client: Client, reference: bytes, clip: GenerateOptions = SHORT_CLIP, callers: int = CALLERS
) -> Iterator[ConstantLoad]:
    """Callers that draw while the block runs; at its end their last clips are waited for.

    Args:
        client: Client of all the servers.
        reference: The right clip.
        clip: What each asks for.
        callers: How many there are.
    """
    load = ConstantLoad(client, reference, clip)
    threads = [threading.Thread(target=load.call, daemon=True) for _ in range(callers)]
    for thread in threads:
        thread.start()
    try:
        yield load
    finally:
        load.end()
        deadline = time.monotonic() + ANSWER_TIMEOUT_S
        for thread in threads:
            thread.join(max(0.0, deadline - time.monotonic()))
        load.seen[NOTHING] += sum(thread.is_alive() for thread in threads)


def clips_drawn(server: Server) -> int:
    """Clips that a server has drawn since it started."""
    with Client(server.grpc_url) as client:
        return client.statistics()[PUBLIC_MODEL].requests


def wait_until_drawn(server: Server, more: int) -> None:
    """Waits until a server has drawn so many clips more than now.

    Raises:
        TimeoutError: If it does not.
    """
    wanted, deadline = clips_drawn(server) + more, time.monotonic() + ANSWER_TIMEOUT_S
    while clips_drawn(server) < wanted:
        if time.monotonic() > deadline:
            raise TimeoutError(f"{server.grpc_url} has not drawn {more} clips more")
        time.sleep(POLL_S)


def replacements() -> list[Trial]:
    """Two servers that are replaced one by one, and one of two that dies."""
    return [Trial("replace-both", _replace_both), Trial("kill-one-of-two", _kill_one)]


def _replace_both(repository: Path) -> Fault:
    options, shares = ServeOptions(repository), []
    with ExitStack() as stack:
        servers = [stack.enter_context(Server(options)) for _ in range(2)]
        client = stack.enter_context(Client([server.grpc_url for server in servers]))
        with constant_load(client, draw(client, SHORT_CLIP)) as load:
            for number, old in enumerate(servers):
                wait_until_drawn(old, CALLERS // 2)
                shares.append(clips_drawn(old))
                os.kill(old.pid, signal.SIGTERM)
                old.wait(ANSWER_TIMEOUT_S)
                port = old.running.grpc_port
                servers[number] = stack.enter_context(Server(replace(options, grpc_port=port)))
            for new in servers:
                wait_until_drawn(new, 1)
                shares.append(clips_drawn(new))
    return Fault(
        "SIGTERM of one of two servers that one client calls, a new one at its address, then the "
        "same of the other",
        f"each of {CALLERS} callers gets clip after clip, without an error and without a retry; "
        "all four servers draw some",
        f"{counted(+load.seen)}; the four had drawn {', '.join(map(str, shares))} when looked at",
        None,
        load.seen[NOTHING],
        all_among(+load.seen, (CLIP_OUTCOME,)) and all(shares),
    )


def _kill_one(repository: Path) -> Fault:
    options = ServeOptions(repository)
    with Server(options) as server, Server(options) as other:
        with Client([server.grpc_url, other.grpc_url], max_retries=1) as client:
            with constant_load(client, draw(client, SHORT_CLIP)) as load:
                wait_until_drawn(other, 1)
                os.kill(other.pid, signal.SIGKILL)
                wait_until_drawn(server, CALLERS)
    return Fault(
        "kill -9 of one of two servers that one client with one retry calls",
        f"each of {CALLERS} callers gets clip after clip: what was lost is drawn again by the "
        "other one",
        counted(+load.seen),
        None,
        load.seen[NOTHING],
        all_among(+load.seen, (CLIP_OUTCOME,)),
    )
