"""Shows how far a request is, from the counters that Triton keeps of its stages."""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping
from types import TracebackType

from rich.console import Console
from rich.status import Status

from reelserve.client._client import Client
from reelserve.client._exceptions import ReelserveError
from reelserve.client._statistics import StageStatistics
from reelserve.pipeline import contract

POLL_S = 0.25
STAGE_ORDER = tuple(
    name for name in contract.STAGES if name not in (*contract.PUBLIC_MODELS, "denoiser")
)
"""Stages that pass a request on; `denoiser` is called by `video_diffusion`."""


def last_moved(before: Mapping[str, StageStatistics], now: Mapping[str, StageStatistics]) -> str:
    """The last stage whose counter has moved since `before`, in words.

    It says what is done and not what runs: Triton counts a stage when it is through, and
    `video_diffusion` after every denoising step, so its last step looks like any other. Counters
    are the server's: other clients' requests move them too.
    """
    idle = StageStatistics()
    for stage in reversed(STAGE_ORDER):
        count = now.get(stage, idle).requests - before.get(stage, idle).requests
        if count > 0:
            return f"{stage}, step {count} done" if stage == "video_diffusion" else f"{stage} done"
    return "request sent"


class Progress:
    """A spinner with the seconds passed and the last stage done, while the block runs.

    Without a terminal it prints a line whenever the stage changes.

    Args:
        client: Asked for its counters; may be waiting for a clip in another thread.
        console: To draw on.
    """

    def __init__(self, client: Client, console: Console) -> None:
        self._client, self._console = client, console
        self._done = threading.Event()
        self._status = Status("request sent", console=console)
        self._thread = threading.Thread(target=self._follow, daemon=True)
        self._started = time.monotonic()

    def __enter__(self) -> Progress:
        self._started = time.monotonic()
        if self._console.is_terminal:
            self._status.start()
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._done.set()
        self._status.stop()
        self._thread.join()

    def _follow(self) -> None:
        shown = ""
        try:
            before = self._client.statistics()
            while not self._done.wait(POLL_S):
                stage = last_moved(before, self._client.statistics())
                passed = f"{time.monotonic() - self._started:5.1f} s  {stage}"
                if self._console.is_terminal:
                    self._status.update(passed)
                elif stage != shown:
                    shown = stage
                    self._console.print(passed, highlight=False)
        except (ReelserveError, ValueError):
            # The request itself reports what is wrong with the server.
            return
