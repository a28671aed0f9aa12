from __future__ import annotations

import asyncio
import importlib.machinery
import io
import sys
import types

import pytest
from rich.console import Console

from reelserve.client import Event, InternalError, Video, VideoInfo, progress
from reelserve.client.progress import described_event, follow, follow_async


def event(kind, stage="video_diffusion", remaining_s=6.4, **fields):
    values = {"step": None, "steps": None, **fields}
    return Event(kind, stage, 3.14159, remaining_s, **values)


def clip(info):
    return event("clip", "video_encoder", 0.0, video=Video(b"mp4", VideoInfo(**info)))


@pytest.mark.parametrize(
    ("shown", "words"),
    [
        (event("step", step=3, steps=8), "3.1 s  video_diffusion, step 3 of 8, about 6 s left"),
        (event("stage", "text_encoder"), "3.1 s  text_encoder done, about 6 s left"),
        (event("waiting", "upsampler", None), "3.1 s  upsampler"),
        (event("preview", preview=b"png"), "3.1 s  first picture, about 6 s left"),
    ],
    ids=lambda value: value.kind if isinstance(value, Event) else "",
)
def test_described_event_says_what_happened(shown, words):
    assert described_event(shown).strip() == words


def test_follow_prints_a_line_for_each_stage_and_step_without_a_terminal(info):
    out = io.StringIO()
    pictures = []
    events = [
        event("stage", "text_encoder"),
        event("step", step=1, steps=2),
        event("preview", preview=b"png"),
        event("waiting"),
        clip(info),
    ]

    video = follow(events, Console(file=out), pictures.append)

    assert video.mp4 == b"mp4" and pictures == [b"png"]
    lines = out.getvalue().splitlines()
    assert [line.split("  ")[-1].split(",")[0] for line in lines] == [
        "text_encoder done",
        "video_diffusion",
        "first picture",
    ]


def test_follow_keeps_one_line_on_a_terminal(info):
    out = io.StringIO()
    console = Console(file=out, force_terminal=True, width=80)

    follow([event("waiting", "x", None), event("step", step=1, steps=2), clip(info)], console)

    assert out.getvalue().count("\n") == 1
    assert "video_diffusion, step 1 of 2" in out.getvalue()


def test_follow_async_shows_the_same(info):
    out = io.StringIO()

    async def events():
        for one in (event("stage", "text_encoder"), clip(info)):
            yield one

    assert asyncio.run(follow_async(events(), Console(file=out))).mp4 == b"mp4"
    assert "text_encoder done" in out.getvalue()


class Output:
    """The widget that Rich draws into, as ipywidgets has it."""

    def clear_output(self, wait):
        pass

    def close(self):
        pass

    def __enter__(self):
        pass

    def __exit__(self, *error):
        pass


def test_follow_draws_a_bar_that_changes_in_a_notebook(info, monkeypatch):
    shown = []
    for name, members in (
        ("IPython", {}),
        ("IPython.display", {"display": shown.append}),
        ("ipywidgets", {"Output": Output}),
    ):
        module = types.ModuleType(name)
        module.__spec__ = importlib.machinery.ModuleSpec(name, None)
        vars(module).update(members)
        monkeypatch.setitem(sys.modules, name, module)

    video = follow([event("step", step=1, steps=2), clip(info)], Console(force_jupyter=True))

    assert video.mp4 == b"mp4"
    assert any(isinstance(one, Output) for one in shown)


def test_follow_prints_lines_in_a_notebook_without_widgets(info, monkeypatch):
    """Rich would warn, and show nothing."""
    monkeypatch.setattr(progress, "_has_widgets", lambda: False)
    console = Console(force_jupyter=True, record=True)

    assert follow([event("step", step=1, steps=2), clip(info)], console).mp4 == b"mp4"
    assert "video_diffusion, step 1 of 2" in console.export_text()


def test_follow_raises_when_the_events_end_without_a_clip():
    with pytest.raises(InternalError, match="ended without a clip"):
        follow([event("waiting")], Console(file=io.StringIO()))
