"""Keeps a Triton running: starts it, sees that it dies or hangs, starts it again."""

from __future__ import annotations

import asyncio
import logging
import time
from collections import deque

from reelserve.server.frontend.service import Service
from reelserve.server.frontend.upstream import Upstream
from reelserve.server.launch.triton_process import KILL_AFTER_S, ServerError, TritonProcess
from reelserve.server.metric_table import TRITON_RESTARTS

WATCH_S = 0.25
"""Interval between two checks that its processes live."""
ABANDONED_S = 300.0
"""How long Triton may go on with a clip that nobody waits for, before it counts as hung."""
MAX_RESTARTS = 5
RESTARTS_WITHIN_S = 600.0
"""After so many restarts within so long it is given up, unless another Triton serves."""
MAX_BACKOFF_S = 60.0
KEPT_RESTARTS = 16
"""Restarts that are remembered: with so many, the back-off is as long as it can be."""

_log = logging.getLogger(__name__)


class Supervisor:
    """Looks after one Triton.

    Args:
        triton: Its processes.
        upstream: How the front end sees it.
        service: The clips; what Triton loses fails there.
        hang_timeout_s: How long it may be stopped, or silent.
    """

    def __init__(
        self, triton: TritonProcess, upstream: Upstream, service: Service, hang_timeout_s: float
    ) -> None:
        self._triton, self._upstream, self._service = triton, upstream, service
        self._hang_timeout_s = hang_timeout_s
        self._restarts: deque[float] = deque(maxlen=KEPT_RESTARTS)

    @property
    def pid(self) -> int:
        """Process id of Triton; 0 while it does not run."""
        return self._triton.pid

    async def start(self) -> None:
        """Starts it for the first time.

        Raises:
            ServerError: If it does not start.
        """
        await self._triton.start()
        self._upstream.connect(self._triton.channel)

    async def keep_running(self) -> None:
        """Starts it again whenever it dies or hangs; returns never.

        Raises:
            ServerError: If it dies again and again, and no other one serves.
        """
        while True:
            reason = await self._watch()
            _log.error("%s: %s; it is started again", self._upstream.load.name, reason)
            while not await self._started_again(reason):
                reason = "it did not start"

    async def stop(self, kill_after_s: float = KILL_AFTER_S) -> None:
        """Ends it; what has not ended by itself after so long is killed."""
        self._upstream.disconnect()
        await self._triton.stop(kill_after_s)

    async def _watch(self) -> str:
        """Waits until it must be started again; gives the reason."""
        while True:
            await asyncio.sleep(WATCH_S)
            if (reason := self._triton.lost()) is not None:
                return reason
            if (reason := await self._triton.hung(self._hang_timeout_s)) is not None:
                return reason
            if self._service.abandoned_s(self._upstream.load) > ABANDONED_S:
                return f"a clip for which nobody waits has not ended for {ABANDONED_S:g} s"

    async def _started_again(self, reason: str) -> bool:
        # Nothing that it holds can be saved.
        self._upstream.disconnect()
        await self._triton.stop(kill_after_s=0)
        await asyncio.sleep(self._backoff_s(reason))
        self._restarts.append(time.monotonic())
        try:
            await self._triton.start()
        except ServerError as error:
            _log.error("%s: %s", self._upstream.load.name, error)
            return False
        self._upstream.connect(self._triton.channel)
        self._service.recorder.count(TRITON_RESTARTS)
        _log.warning("%s is ready again", self._upstream.load.name)
        return True

    def _backoff_s(self, reason: str) -> float:
        """Seconds to wait before the next start: none, then 1, 2, 4 and so on."""
        now = time.monotonic()
        lately = [moment for moment in self._restarts if now - moment < RESTARTS_WITHIN_S]
        if len(lately) >= MAX_RESTARTS and not self._service.ready:
            raise ServerError(
                f"{self._upstream.load.name} was started again {MAX_RESTARTS} times within "
                f"{RESTARTS_WITHIN_S:g} s and given up: {reason}\n{self._triton.errors()}"
            )
        return min(MAX_BACKOFF_S, 2.0 ** (len(lately) - 1)) if lately else 0.0
