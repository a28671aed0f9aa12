"""Shows how far a clip is."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from rich.console import Console
from rich.status import Status

from reelserve.client._events import Event
from reelserve.client._exceptions import InternalError
from reelserve.client._video import Video


def described_event(event: Event) -> str:
    """An event in words."""
    if event.kind == "step":
        words = f"{event.stage}, step {event.step} of {event.steps}"
    elif event.kind == "stage":
        words = f"{event.stage} done"
    elif event.kind == "preview":
        words = "first picture"
    else:
        words = event.stage
    left = "" if event.remaining_s is None else f", about {event.remaining_s:.0f} s left"
    return f"{event.seconds:5.1f} s  {words}{left}"


def follow(
    events: Iterable[Event],
    console: Console,
    on_preview: Callable[[bytes], object] = lambda png: None,
) -> Video:
    """Shows the events of a stream until its clip is there.

    On a terminal one line lives; elsewhere every stage and step is a line of its own.

    Args:
        events: Of one clip.
        console: To draw on.
        on_preview: Called with the first picture, a PNG file.

    Raises:
        InternalError: If the events end without a clip.
    """
    with Status("request sent", console=console) as status:
        for event in events:
            if event.video is not None:
                return event.video
            if event.preview is not None:
                on_preview(event.preview)
            if console.is_terminal:
                status.update(described_event(event))
            elif event.kind != "waiting":
                console.print(described_event(event), highlight=False)
    raise InternalError("the stream ended without a clip; see the server's log")
