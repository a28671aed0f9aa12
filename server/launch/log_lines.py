"""Lines of the server's log: read from what Triton writes, written as text or as JSON."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta, timezone
from typing import Any

LEVELS = {"V": "debug", "I": "info", "W": "warning", "E": "error", "F": "critical"}
"""Triton's letters."""
TRITON_LINE = re.compile(
    r"(?P<level>[VIWEF])(?P<date>\d{4}) (?P<clock>[\d:.]+) \d+ (?P<file>[^\s\]]+:\d+)\] ?"
    r"(?P<message>.*)"
)
"""As in `I1128 15:38:56.123456 1234 server.cc:674] "a message"`."""
COLOUR = re.compile(r"\x1b\[[\d;]*m")
"""With which one of Triton's libraries paints its lines."""
REFUSED_START = "error: "
"""Begins the line with which Triton says why it does not start."""


@dataclass(frozen=True)
class LogLine:
    """One line of the log.

    Args:
        time: Seconds since 1970.
        level: `debug`, `info`, `warning`, `error` or `critical`.
        source: Who says it: `server` is the front end, others are names of Tritons.
        message: What; it may hold whatever a caller has sent.
        fields: More of it by name, in JSON's own types.
    """

    time: float
    level: str
    source: str
    message: str
    fields: Mapping[str, Any] = field(default_factory=dict)

    def to_json(self) -> str:
        """One JSON object of ASCII characters, without a line break."""
        told = {"time": self._moment(), "level": self.level, "source": self.source}
        return json.dumps({**told, "message": self.message, **self.fields}, default=str)

    def to_text(self) -> str:
        """One line in which nothing but visible characters, spaces and tabs stands."""
        fields = (f" {name}={_value(value)}" for name, value in self.fields.items())
        words = f"{printable(self.message)}{''.join(fields)}"
        return f"{self._moment()} {self.level.upper()} {self.source}: {words}"

    def _moment(self) -> str:
        moment = datetime.fromtimestamp(self.time, timezone.utc)
        return f"{moment:%Y-%m-%dT%H:%M:%S}.{moment.microsecond // 1000:03d}Z"


def triton_line(source: str, text: str, now: float) -> LogLine:
    """Reads a line that Triton or one of its stages has written.

    What is not of Triton's own form, as what a stage prints, is a message as it is.

    Args:
        source: Name of the Triton.
        text: The line.
        now: When it was read, seconds since 1970.
    """
    text = COLOUR.sub("", text)
    found = TRITON_LINE.fullmatch(text)
    if found is None:
        level = "error" if text.startswith(REFUSED_START) else "info"
        return LogLine(now, level, source, text)
    time = _triton_time(found["date"], found["clock"], now)
    return LogLine(
        time, LEVELS[found["level"]], source, _unquoted(found["message"]), {"file": found["file"]}
    )


def printable(text: str) -> str:
    r"""A text in which control characters, as of a terminal, stand as `\x1b`."""
    if text.isprintable():
        return text
    return "".join(
        character
        if character.isprintable() or character == "\t"
        else character.encode("unicode_escape").decode()
        for character in text
    )


def _value(value: Any) -> str:
    """A field's value: texts of callers are quoted, so that they cannot look like another field."""
    return printable(json.dumps(value, ensure_ascii=False, default=str))


def _triton_time(date: str, clock: str, now: float) -> float:
    """Seconds since 1970 of Triton's date, which has no year; `now` where it is none."""
    current = datetime.fromtimestamp(now, timezone.utc)
    try:
        moment = datetime.strptime(f"{current.year}{date} {clock}+0000", "%Y%m%d %H:%M:%S.%f%z")
        if moment > current + timedelta(days=1):
            moment = moment.replace(year=moment.year - 1)
    except ValueError:
        return now
    return moment.timestamp()


def _unquoted(message: str) -> str:
    """Triton 2.51 writes most messages as texts of JSON."""
    if message.startswith('"'):
        try:
            text = json.loads(message)
        except ValueError:
            return message
        return text if isinstance(text, str) else message
    return message
