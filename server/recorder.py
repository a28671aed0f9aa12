"""What the conductor tells of its work, for the metrics."""

from __future__ import annotations

from typing import Protocol

from reelserve.server.clip_run import Tensors


class Recorder(Protocol):
    """Hears of everything that is counted."""

    def in_flight(self, count: int) -> None:
        """So many clips are accepted and not ended."""

    def refused(self, model: str, reason: str) -> None:
        """A request was refused: `capacity` or `deadline`."""

    def cancelled(self, model: str, stage: str) -> None:
        """A client left while its clip was in this stage."""

    def shared(self, how: str) -> None:
        """A request was answered by another one's clip: `cached` or `joined`."""

    def stage(self, name: str, seconds: float) -> None:
        """A stage has ended, waiting included."""

    def ended(self, model: str, outcome: str, seconds: float, outputs: Tensors | None) -> None:
        """A request has ended: `ok`, `invalid`, `refused`, `cancelled` or `failed`."""
