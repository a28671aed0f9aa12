"""What a stage answers when it cannot compute, besides `ValueError` for a bad request."""

from __future__ import annotations

import re

SOURCE_PLACE = re.compile(r"/\S+:\d+ (?:[\w:<>*&~,]+ ){0,4}?\S+\([^)]*\)(?: const)? ?")
"""File, line, result, function and arguments in the source of an engine."""
SOURCE_LINE = re.compile(r"(?<![\w./+-])[\w./+-]+\.(?:cc|cpp|cu|h|hpp|py):\d+:? ?")
PATH = re.compile(r"(?<![\w.:/])/(?:[\w.@+-]+/)*[\w.@+-]+")


class StageUnavailableError(RuntimeError):
    """The server is full or shutting down; UNAVAILABLE."""


class ClipCancelledError(RuntimeError):
    """The client gave up; CANCELLED."""


class StageError(RuntimeError):
    """A stage failed, in words that need no Python type before them; INTERNAL."""


class CalledStageError(StageError):
    """A stage that was called from another one failed; the message begins with its name."""


class OutOfDeviceMemoryError(StageError):
    """A request took more memory than the GPU has; INTERNAL. Other requests are served on."""


def public_message(error: Exception) -> str:
    """An error in one line, for callers: without paths and without lines of anybody's code."""
    if isinstance(error, OSError) and error.strerror:
        # Its own text ends with the file.
        return f"{type(error).__name__}: {error.strerror}"
    # What another stage said already has a name in it.
    name = "" if isinstance(error, StageError) else f"{type(error).__name__}: "
    return name + without_source(str(error))


def without_source(text: str) -> str:
    """A message in one line, without paths, stack traces and lines of anybody's code."""
    # What follows is where Triton's own frames begin.
    line = " ".join(text.partition("\n\nAt:")[0].split())
    return PATH.sub("a file", SOURCE_LINE.sub("", SOURCE_PLACE.sub("", line)))
