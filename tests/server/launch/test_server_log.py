"""The log of a server, and readers of it that stall, leave or have no room."""

import json
import logging
import os
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from reelserve.server.launch import server_log as module
from reelserve.server.launch.log_lines import LogLine
from reelserve.server.launch.server_log import MAX_WAITING, LogError, ServerLog, server_log

WAIT_S = 30


def line(message):
    return LogLine(time.time(), "info", "server", message)


def messages(path):
    return [json.loads(text)["message"] for text in path.read_text().splitlines()]


def test_a_file_is_emptied_and_gets_every_line(tmp_path):
    path = tmp_path / "new folder" / "log"
    for _ in range(2):
        log = ServerLog("json", path)
        for number in range(1000):
            log.write(line(str(number)))
        log.close(WAIT_S)

    assert messages(path) == [str(number) for number in range(1000)]


def test_lines_are_kept_until_the_log_has_a_place(tmp_path):
    log = ServerLog("json")
    log.write(line("early"))
    log.open(tmp_path / "log")
    log.close(WAIT_S)

    assert messages(tmp_path / "log") == ["early"]


@pytest.mark.parametrize("path", ["/proc/none/log", "/dev/null/log", "/"])
def test_log_refuses_in_one_line_what_it_cannot_write(path):
    with pytest.raises(LogError, match=rf"the log cannot be written to {path}: .*; --log-file .*"):
        ServerLog("text", Path(path))


@pytest.mark.parametrize("blocking", [True, False])
def test_nobody_waits_for_a_reader_that_stalls_and_what_is_left_out_is_counted(
    monkeypatch, blocking
):
    read, write = os.pipe()
    os.set_blocking(write, blocking)
    monkeypatch.setitem(module.STANDARD_STREAMS, "/dev/stdout", write)
    log = ServerLog("json", Path("/dev/stdout"))
    count = 4 * MAX_WAITING
    for number in range(count):
        # Longer than a pipe holds of them.
        log.write(line(f"{number} {'x' * 200}"))
    log.close(0.2)
    os.close(write)

    told = []
    with os.fdopen(read) as reader:
        # Nothing has been read before.
        while len(told) == 0 or "left out" not in told[-1]:
            told.append(json.loads(reader.readline())["message"])
        left_out = int(told.pop().split()[0])
    assert left_out + len(told) <= count and left_out > 0
    assert [int(text.split()[0]) for text in told] == list(range(len(told))), "in their order"


def test_a_full_disk_ends_neither_server_nor_log(tmp_path, monkeypatch):
    path = tmp_path / "log"
    log = ServerLog("json", path)
    wrote, full = os.write, [True]

    def write(descriptor, content):
        if descriptor == log._descriptor and full[0]:
            raise OSError(28, "No space left on device")
        return wrote(descriptor, content)

    monkeypatch.setattr(os, "write", write)
    log.write(line("lost"))
    deadline = time.monotonic() + WAIT_S
    while not log._lost:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    full[0] = False
    log.write(line("kept"))
    log.close(WAIT_S)

    assert messages(path) == [
        "kept",
        "1 lines of the log were left out: it was not read fast enough",
    ]


@pytest.mark.parametrize("kind", ["socket", "file"])
def test_standard_output_is_taken_as_it_is(tmp_path, kind):
    """A socket, as under systemd, cannot be opened by its name; a file must not be emptied."""
    script = (
        "from pathlib import Path; from reelserve.server.launch.server_log import *; "
        "log = ServerLog('text', Path('/dev/stdout')); "
        "log.write(LogLine(0.0, 'info', 'server', 'told')); log.close()"
    )
    near, far = socket.socketpair()
    file = tmp_path / "out"
    file.write_text("before ")
    with near, far, file.open("ab") as appended:
        out = near if kind == "socket" else appended
        subprocess.run([sys.executable, "-c", script], stdout=out, check=True)
        told = far.recv(100).decode() if kind == "socket" else file.read_text()
    assert told == ("" if kind == "socket" else "before ") + (
        "1970-01-01T00:00:00.000Z INFO server: told\n"
    )


SAYS = """
import logging, os, sys, warnings
from pathlib import Path
from reelserve.server.launch.server_log import server_log
with server_log("json", Path("/dev/stdout")) as log:
    logging.getLogger("asyncio").error("by logging\\nin two lines")
    warnings.warn("of Python")
    sys.stderr.write("by Python\\n")
    os.write(2, b"by a library\\n")
    log.say("info", "ready")
    try:
        1 / 0
    except ZeroDivisionError:
        logging.exception("a mistake")
"""


def test_every_line_is_an_object_when_the_log_is_json_on_a_standard_stream():
    ended = subprocess.run(
        [sys.executable, "-W", "always", "-c", SAYS],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=True,
    )
    told = [json.loads(text) for text in ended.stdout.splitlines()]

    said = {one["message"]: one["level"] for one in told}
    assert {one["source"] for one in told} == {"server"}
    assert said["by logging\nin two lines"] == "error" and said["ready"] == "info"
    assert {"by Python", "by a library"} <= said.keys()
    assert any("UserWarning: of Python" in message for message in said)
    (mistake,) = (message for message in said if message.startswith("a mistake\nTraceback"))
    assert mistake.endswith("ZeroDivisionError: division by zero")


def test_warnings_are_shown_to_a_person_without_what_steers_a_terminal(tmp_path, capsys):
    path = tmp_path / "log"
    with server_log("text", path) as log:
        logging.getLogger("reelserve.test").warning("\x1b[31mred\nsecond")
        logging.getLogger("reelserve.requests").info("request", extra={"fields": {"id": "a"}})
        log.say("info", "ready \x9b")

    shown = capsys.readouterr()
    assert shown.err == "\\x1b[31mred\nsecond\nready \\x9b\n" and shown.out == ""
    lines = path.read_text().splitlines()
    assert [text.partition("Z ")[2] for text in lines] == [
        r"WARNING server: \x1b[31mred\nsecond",
        'INFO server: request id="a"',
        r"INFO server: ready \x9b",
    ]
    assert logging.getLogger("reelserve.requests").level == logging.NOTSET
