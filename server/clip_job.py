"""One clip in flight, and who waits for it."""

from __future__ import annotations

import json
import threading
import time
import uuid
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np

from reelserve.server.clip_run import STAGE_ORDER, Tensors
from reelserve.server.places import Place

SECONDS_DECIMALS = 4


class Listener(Protocol):
    """Who waits for a clip."""

    model: str
    """Public model that was asked."""
    quiet_s: float
    """It is told something at least this often."""
    deadline: float | None
    """On the monotonic clock; None waits forever."""
    wants_preview: bool

    def gone(self) -> bool:
        """Whether it has left."""

    def send(self, outputs: Tensors, *, last: bool) -> None:
        """Tells it something."""

    def fail(self, error: Exception) -> None:
        """Tells it that there will be no clip."""


@dataclass
class ClipJob:
    """A clip in flight.

    Args:
        request: Inputs of `text_to_video` by name.
        listener: Who waits.
        place: None while another request draws the same clip.
        answer_key: Equal for requests that give the same clip; None if none are shared.
    """

    request: Tensors
    listener: Listener
    place: Place | None
    answer_key: str | None
    key: str = field(default_factory=lambda: uuid.uuid4().hex)
    accepted: float = field(default_factory=time.monotonic)
    share_s: float = 0.0
    """Its share of the machine's time: of a second beside n others, 1/n."""
    stage: str = STAGE_ORDER[0]
    stage_seconds: dict[str, float] = field(default_factory=dict)
    previews: list[bytes] = field(default_factory=list)
    cancelled: threading.Event = field(default_factory=threading.Event)
    ended: threading.Event = field(default_factory=threading.Event)
    outputs: Tensors | None = None
    error: Exception | None = None

    @property
    def seconds(self) -> float:
        """Since it was accepted."""
        return time.monotonic() - self.accepted

    def finish(self, outputs: Tensors) -> None:
        """Ends it with its clip; INFO is completed with the seconds."""
        info = json.loads(outputs["INFO"].reshape(-1)[0])
        seconds = {**self.stage_seconds, "total": self.seconds}
        info["seconds"] = {name: round(s, SECONDS_DECIMALS) for name, s in seconds.items()}
        self.outputs = {**outputs, "INFO": np.array([json.dumps(info).encode()], np.object_)}
        self.ended.set()

    def fail(self, error: Exception) -> None:
        """Ends it without one."""
        self.error = error
        self.ended.set()
