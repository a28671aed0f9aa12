"""Tells the events of a clip to who asked for them."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Callable, Sequence
from itertools import zip_longest

from reelserve.pipeline.contract import EVENT, PREVIEW
from reelserve.server.frontend.call_errors import CallError
from reelserve.server.frontend.clip import Clip
from reelserve.server.frontend.events import ClipEvent
from reelserve.server.progress import Entry, PreviewLeft, StageEnded, Stepped

TICK_S = 0.05
QUIET_S = 1.0
"""A client hears something at least this often."""

_drawn: set[asyncio.Task[bytes | None]] = set()
"""Previews on their way; Triton is not told when nobody wants one any more."""


async def clip_events(
    clip: Clip, remaining_s: Callable[[Clip], float | None]
) -> AsyncGenerator[dict[str, bytes], None]:
    """What happens to a clip, as outputs of a response, until it has ended.

    Args:
        clip: In flight.
        remaining_s: Estimates when it will be there.
    """
    told, preview, heard = 0, None, time.monotonic()
    ended = False
    while not ended:
        await asyncio.wait({clip.result}, timeout=TICK_S)
        # What was told before the end is told before the clip.
        ended = clip.result.done()
        entries = clip.entries()[told:]
        told += len(entries)
        messages = [_outputs(entry, clip, remaining_s) for entry in _newest_steps(entries)]
        if any(isinstance(entry, PreviewLeft) for entry in entries):
            preview = _begin_preview(clip)
        if preview is not None and preview.done():
            png, preview = preview.result(), None
            event = ClipEvent("preview", clip.stage(), clip.seconds, remaining_s(clip))
            messages.append({EVENT.name: event.to_json(), PREVIEW.name: png} if png else None)
        if not ended and time.monotonic() - heard >= QUIET_S:
            messages.append(_waiting(clip, remaining_s))
        for message in messages:
            if message is not None:
                yield message
                heard = time.monotonic()


async def heartbeats(
    clip: Clip, remaining_s: Callable[[Clip], float | None]
) -> AsyncGenerator[dict[str, bytes], None]:
    """Events every `QUIET_S` that a clip is on its way, as outputs of a response, until its end.

    Args:
        clip: In flight.
        remaining_s: Estimates when it will be there.
    """
    while not clip.result.done():
        await asyncio.wait({clip.result}, timeout=QUIET_S)
        if not clip.result.done():
            yield _waiting(clip, remaining_s)


def _newest_steps(entries: Sequence[Entry]) -> list[Entry]:
    """The entries, and of steps that follow each other the last one."""
    return [
        entry
        for entry, after in zip_longest(entries, entries[1:])
        if not (isinstance(entry, Stepped) and isinstance(after, Stepped))
    ]


def _waiting(clip: Clip, remaining_s: Callable[[Clip], float | None]) -> dict[str, bytes]:
    event = ClipEvent("waiting", clip.stage(), clip.seconds, remaining_s(clip))
    return {EVENT.name: event.to_json()}


def _outputs(
    entry: Entry, clip: Clip, remaining_s: Callable[[Clip], float | None]
) -> dict[str, bytes] | None:
    seconds, left_s = clip.seconds, remaining_s(clip)
    match entry:
        case StageEnded(stage=stage):
            event = ClipEvent("stage", stage, seconds, left_s)
        case Stepped(step=step, steps=steps):
            event = ClipEvent("step", "video_diffusion", seconds, left_s, step, steps)
        case _:
            return None
    return {EVENT.name: event.to_json()}


def _begin_preview(clip: Clip) -> asyncio.Task[bytes | None]:
    task = asyncio.create_task(_preview(clip))
    _drawn.add(task)
    task.add_done_callback(_drawn.discard)
    return task


async def _preview(clip: Clip) -> bytes | None:
    try:
        return await clip.preview()
    except (CallError, ValueError, KeyError):
        # A clip goes on without its first picture.
        return None
