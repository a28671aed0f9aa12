"""A clip in flight: its call to Triton, those who wait for it, and how far it is."""

from __future__ import annotations

import asyncio
import logging
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from reelserve.pipeline.contract import ENSEMBLE_STAGES, INFO, VIDEO
from reelserve.server.frontend.admission import Place
from reelserve.server.frontend.call_errors import CallError, cancelled
from reelserve.server.frontend.messages import (
    Tensors,
    infer_message,
    output_arrays,
    upstream_request,
    with_seconds,
)
from reelserve.server.frontend.picture import encode_png
from reelserve.server.frontend.upstream import Upstream
from reelserve.server.progress import Entry, ProgressFolder, StageEnded, Stepped

SECONDS_DECIMALS = 4
DENOISING = "video_diffusion"

_log = logging.getLogger(__name__)

Answer = Mapping[str, bytes]
"""VIDEO and INFO."""


class Clip:
    """A clip in flight. It goes on until Triton has ended its work, whoever waits.

    Args:
        tensors: Checked public inputs.
        upstream: The Triton that draws it.
        place: Its place there.
        progress: Where its stages tell how far it is, and find that nobody waits.
        on_end: Told once, when Triton's work has ended.
    """

    def __init__(
        self,
        tensors: Tensors,
        upstream: Upstream,
        place: Place,
        progress: ProgressFolder,
        on_end: Callable[[Clip], None],
    ) -> None:
        self.key, self.place = uuid.uuid4().hex, place
        self.accepted = time.monotonic()
        self.ended_at: float | None = None
        self.left_at: float | None = None
        """When the last one who waited has left."""
        self._upstream, self._progress, self._on_end = upstream, progress, on_end
        self._waiting = 0
        self._entries: list[Entry] = []
        progress.open_clip(self.key)
        self.result: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
        # An error that nobody waits for must not be reported as never retrieved.
        self.result.add_done_callback(lambda done: done.cancelled() or done.exception())
        self._task = asyncio.create_task(self._draw(tensors))

    @property
    def seconds(self) -> float:
        """Since it was accepted."""
        return time.monotonic() - self.accepted

    def join(self) -> None:
        """Somebody waits for it."""
        self._waiting += 1

    def leave(self) -> bool:
        """Somebody has left before the end; says whether it was the last one.

        The clip is dropped at its next step or stage then, and the ensemble with it.
        """
        self._waiting -= 1
        if self._waiting or self.result.done():
            return False
        self.left_at = time.monotonic()
        self._progress.cancel(self.key)
        self.result.set_exception(cancelled())
        return True

    def fail(self, error: CallError) -> None:
        """Ends it for those who wait; Triton's work may go on."""
        if not self.result.done():
            self._progress.cancel(self.key)
            self.result.set_exception(error)

    def entries(self) -> list[Entry]:
        """What its stages have told, in order."""
        if self.ended_at is None:
            self._entries = self._progress.read(self.key)
        return self._entries

    def stage(self) -> str:
        """The stage that it is in."""
        ended = {entry.stage for entry in self.entries() if isinstance(entry, StageEnded)}
        last = max((index for index, s in enumerate(ENSEMBLE_STAGES) if s in ended), default=-1)
        return ENSEMBLE_STAGES[min(last + 1, len(ENSEMBLE_STAGES) - 1)]

    def waited_s(self) -> float:
        """Seconds that it has waited for its turn, in the stages that have ended."""
        periods = stage_periods(self.entries(), self.accepted)
        waited = sum(period.began - period.since for period in periods)
        diffusion = next((period for period in periods if period.name == DENOISING), None)
        first = next((entry for entry in self.entries() if isinstance(entry, Stepped)), None)
        if diffusion is not None and first is not None:
            waited += first.began - diffusion.began
        return round(max(0.0, waited), SECONDS_DECIMALS)

    async def preview(self) -> bytes | None:
        """A first picture, a PNG file, from the latents that were left; once."""
        latents = self._progress.take_preview(self.key)
        if latents is None:
            return None
        tensors: dict[str, NDArray[Any]] = {"LATENTS": latents[None]}
        reply = await self._upstream.infer(infer_message("vae_decoder", tensors, ""))
        frames = output_arrays(reply)["FRAMES"][0].astype(np.uint8, copy=False)
        return await asyncio.to_thread(encode_png, frames[len(frames) // 2])

    async def wait_ended(self) -> None:
        """Waits until Triton has ended its work."""
        await asyncio.wait({self._task})

    async def _draw(self, tensors: Tensors) -> None:
        try:
            reply = await self._upstream.infer(upstream_request(tensors, self.key))
            outputs = {name: array.item() for name, array in output_arrays(reply).items()}
            seconds = elapsed_by_stage(self.entries(), self.accepted, time.monotonic())
            info = with_seconds(outputs[INFO.name], seconds)
            if not self.result.done():
                self.result.set_result({VIDEO.name: outputs[VIDEO.name], INFO.name: info})
        except CallError as error:
            self.fail(error)
        except Exception as error:
            _log.exception("a clip has failed by a mistake of the server")
            self.fail(CallError.internal(error))
        finally:
            self.entries()
            self.ended_at = time.monotonic()
            self._progress.forget(self.key)
            self._on_end(self)


@dataclass(frozen=True)
class StagePeriod:
    """When a stage has worked on a clip, on the monotonic clock.

    Args:
        name: Its name; those of several that told nothing, joined by `+`.
        since: When the stage before it had ended.
        began: When it began.
        ended: When it ended.
    """

    name: str
    since: float
    began: float
    ended: float


def stage_periods(entries: Sequence[Entry], accepted: float) -> list[StagePeriod]:
    """The stages that have ended, in their order.

    Stages that tell nothing, as NVIDIA's own backends do, are one block: from the end of the stage
    before them to the beginning of the one after.
    """
    told = {entry.stage: entry for entry in entries if isinstance(entry, StageEnded)}
    periods: list[StagePeriod] = []
    silent: list[str] = []
    since = accepted
    for stage in ENSEMBLE_STAGES:
        if (entry := told.get(stage)) is None:
            silent.append(stage)
            continue
        if silent:
            periods.append(StagePeriod("+".join(silent), since, since, max(since, entry.began)))
            silent, since = [], entry.began
        periods.append(StagePeriod(stage, since, entry.began, entry.ended))
        since = entry.ended
    return periods


def elapsed_by_stage(entries: Sequence[Entry], accepted: float, done: float) -> dict[str, float]:
    """Seconds of every stage, waiting included, and `total`; see `stage_periods`."""
    periods = stage_periods(entries, accepted)
    seconds = {period.name: period.ended - period.since for period in periods}
    seconds["total"] = done - accepted
    return {name: round(max(0.0, value), SECONDS_DECIMALS) for name, value in seconds.items()}
