import json
from datetime import datetime, timezone
from pathlib import Path

import pytest

from reelserve.server.launch.log_lines import LogLine, printable, triton_line

NOW = datetime(2026, 11, 28, 15, 0, tzinfo=timezone.utc).timestamp()
FORGED = (
    'a star\n2026-11-28T15:00:00.000Z INFO server: request id="forged"\r'
    "\x1b[31mred\x9b2J\u2028\u202e"
)
"""Ends of lines, colours, a C1 control, a line separator and a turn of direction."""


@pytest.mark.parametrize(
    ("text", "level", "time", "message"),
    [
        ('I1128 14:59:58.250000 7 server.cc:67] "said"', "info", NOW - 1.75, "said"),
        ('W1231 23:59:00.000000 7 a/b.cc:1] "x\\ny"', "warning", 1767225540.0, "x\ny"),
        ("E1128 14:59:58.250000 7 model.py:3] half", "error", NOW - 1.75, "half"),
        ('E0000 00:00:1701430503.12 7 c.cc:9] "no date', "error", NOW, '"no date'),
        ("F1399 99:59:58.250000 7 server.cc:67] ", "critical", NOW, ""),
        ("error: creating server: Internal", "error", NOW, "error: creating server: Internal"),
        ("Traceback (most recent call last):", "info", NOW, "Traceback (most recent call last):"),
        ("\x1b[1;33mWARN\x1b[0m off", "info", NOW, "WARN off"),
        ('{"level": "error"}', "info", NOW, '{"level": "error"}'),
    ],
)
def test_triton_line_reads_what_triton_and_its_stages_write(text, level, time, message):
    line = triton_line("gpu0", text, NOW)

    assert (line.level, line.time, line.source, line.message) == (level, time, "gpu0", message)
    assert bool(line.fields) == ("] " in text)


def test_to_json_is_one_object_of_plain_characters():
    line = LogLine(NOW, "info", "server", FORGED, {"id": FORGED, "seconds": 0.5})
    text = line.to_json()

    assert text.isascii() and text.isprintable()
    assert json.loads(text) == {
        **{"time": "2026-11-28T15:00:00.000Z", "level": "info", "source": "server"},
        **{"message": FORGED, "id": FORGED, "seconds": 0.5},
    }


def test_to_text_is_one_line_that_no_text_of_a_caller_can_forge():
    line = LogLine(NOW, "info", "server", FORGED, {"id": FORGED, "frames": 16})
    text = line.to_text()

    assert text.isprintable() and text.startswith("2026-11-28T15:00:00.000Z INFO server: a star\\n")
    # Its quotes are escaped, so what is in them ends at the first bare one.
    assert r"request id=\"forged\"" in text and text.endswith('" frames=16')


def test_a_field_of_any_kind_ends_no_log():
    line = LogLine(NOW, "info", "server", "", {"path": Path("a\nb"), "half": "\ud800"})
    assert json.loads(line.to_json())["path"] == "a\nb"
    assert line.to_text().endswith(r'path="a\nb" half="\ud800"')


def test_printable_keeps_what_can_be_seen():
    assert printable("é 星 \t|") == "é 星 \t|"
    assert printable("\ud800\0\x1b\x7f") == r"\ud800\x00\x1b\x7f"
