"""Shows how far a clip is: a bar on a terminal and in a notebook, lines elsewhere."""

from __future__ import annotations

import importlib.util
from collections.abc import AsyncIterable, Callable, Iterable
from contextlib import AbstractContextManager, nullcontext

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn

from reelserve.client._events import Event
from reelserve.client._exceptions import InternalError
from reelserve.client._video import Video

UNKNOWN_S = None
"""Total of a bar that only moves: nothing is known yet about how long the clip takes."""


def described_event(event: Event) -> str:
    """An event in words."""
    if event.kind == "step":
        words = f"{event.stage}, step {event.step} of {event.steps}"
    elif event.kind == "stage":
        words = f"{event.stage} done"
    elif event.kind == "preview":
        words = "first picture"
    elif event.kind == "restart":
        words = "the server was lost, another one begins anew"
    else:
        words = event.stage
    left = "" if event.remaining_s is None else f", about {event.remaining_s:.0f} s left"
    return f"{event.seconds:5.1f} s  {words}{left}"


def follow(
    events: Iterable[Event],
    console: Console | None = None,
    on_preview: Callable[[bytes], object] = lambda png: None,
) -> Video:
    """Shows the events of a stream until its clip is there.

    Args:
        events: Events of one clip: `follow(client.stream("a red circle"))`.
        console: Where they are shown; standard output, or the notebook, if left out.
        on_preview: Called with the first picture, a PNG file.

    Raises:
        InternalError: If the events end without a clip.
    """
    display = _Display(console or Console(), on_preview)
    with display.shown():
        for event in events:
            if event.video is not None:
                return event.video
            display.show(event)
    raise _no_clip()


async def follow_async(
    events: AsyncIterable[Event],
    console: Console | None = None,
    on_preview: Callable[[bytes], object] = lambda png: None,
) -> Video:
    """`follow` for the stream of an `AsyncClient`.

    Args:
        events: Events of one clip.
        console: Where they are shown; standard output, or the notebook, if left out.
        on_preview: Called with the first picture, a PNG file.

    Raises:
        InternalError: If the events end without a clip.
    """
    display = _Display(console or Console(), on_preview)
    with display.shown():
        async for event in events:
            if event.video is not None:
                return event.video
            display.show(event)
    raise _no_clip()


class _Display:
    """A bar that lives in one line, or lines.

    Args:
        console: Where it is shown.
        on_preview: Called with the first picture.
    """

    def __init__(self, console: Console, on_preview: Callable[[bytes], object]) -> None:
        self._console, self._on_preview = console, on_preview
        self._bar = None
        if console.is_terminal or (console.is_jupyter and _has_widgets()):
            columns = (BarColumn(bar_width=24), TextColumn("{task.description}", markup=False))
            self._bar = Progress(*columns, console=console, transient=True)
            self._task = self._bar.add_task("request sent", total=UNKNOWN_S)

    def shown(self) -> AbstractContextManager[object]:
        """Shows the bar for the length of a block."""
        return self._bar or nullcontext()

    def show(self, event: Event) -> None:
        """Shows an event."""
        if event.preview is not None:
            self._on_preview(event.preview)
        words = described_event(event)
        if self._bar is not None:
            left_s = event.remaining_s
            total_s = UNKNOWN_S if left_s is None else event.seconds + left_s
            self._bar.update(self._task, description=words, completed=event.seconds, total=total_s)
        elif event.kind != "waiting":
            self._console.print(words, highlight=False, markup=False)


def _has_widgets() -> bool:
    """Whether a notebook can show a bar that changes; Rich warns where it cannot."""
    return importlib.util.find_spec("ipywidgets") is not None


def _no_clip() -> InternalError:
    return InternalError("the stream ended without a clip; see the server's log")
