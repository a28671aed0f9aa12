"""The log of the whole server: the front end's, the requests', and that of every Triton.

Everybody leaves lines in a queue, and a thread writes them. So nobody waits for who reads the log:
where that one does not keep up, lines are left out and counted.
"""

from __future__ import annotations

import contextlib
import logging
import os
import queue
import select
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

from reelserve.server.frontend.request_log import REQUESTS_LOGGER
from reelserve.server.launch.log_lines import LogLine, printable, triton_line
from reelserve.server.launch.process_output import ProcessOutput

STANDARD_STREAMS = {"/dev/stdout": 1, "/dev/stderr": 2}
"""Names of logs to their descriptors."""
SERVER = "server"
"""Source of what the front end says."""
MAX_WAITING = 4096
"""Lines that wait to be written; later ones are left out."""
AT_ONCE = 256
CLOSE_TIMEOUT_S = 2.0
"""How long the end of the log may take to be written when the server ends."""

Format = Literal["text", "json"]
FORMATS: tuple[Format, ...] = ("text", "json")


class LogError(RuntimeError):
    """The log cannot be written; the message names it."""


class ServerLog:
    """A log that never keeps anybody waiting.

    Args:
        format: `text`, or `json` for one object a line.
        path: A file, emptied first, or the name of a standard stream, which is taken as it is;
            None keeps the lines until `open` names one.

    Raises:
        LogError: If it cannot be written.
    """

    def __init__(self, format: Format = "text", path: Path | None = None) -> None:
        self._json = format == "json"
        self._written = LogLine.to_json if self._json else LogLine.to_text
        self._standard = is_standard(path)
        self._queue: queue.SimpleQueue[LogLine | None] = queue.SimpleQueue()
        self._left_out, self._lost, self._told = 0, 0, 0
        self._counting = threading.Lock()
        self._descriptor: int | None = None
        self._thread = threading.Thread(target=self._keep_writing, daemon=True)
        if path is not None:
            self.open(path)

    def open(self, path: Path) -> None:
        """Begins to write; once.

        Raises:
            LogError: If it cannot be written.
        """
        try:
            self._descriptor = _opened(path)
        except OSError as error:
            raise LogError(
                f"the log cannot be written to {path}: {error.strerror}; --log-file names another "
                "one, as - for standard output"
            ) from None
        self._thread.start()

    def write(self, line: LogLine) -> None:
        """Leaves a line to be written."""
        if self._queue.qsize() < MAX_WAITING:
            self._queue.put(line)
        else:
            with self._counting:
                self._left_out += 1

    def say(self, level: str, message: str) -> None:
        """Tells who has started the server, on standard error, unless the log is read there."""
        if not self._standard or self._json:
            self.write(LogLine(time.time(), level, SERVER, message))
        if not (self._standard and self._json):
            sys.stderr.write(f"{visible_lines(message)}\n")
            sys.stderr.flush()

    def output(self, source: str) -> ProcessOutput:
        """Takes what a process and its children write.

        Args:
            source: Name of the Triton, or `SERVER`.
        """

        def take(text: str) -> None:
            if text.strip():
                self.write(triton_line(source, text, time.time()))

        return ProcessOutput(take)

    def close(self, timeout_s: float = CLOSE_TIMEOUT_S) -> None:
        """Writes what is left, for as long as that may take."""
        self._queue.put(None)
        if self._descriptor is None:
            return
        self._thread.join(timeout_s)
        if not self._thread.is_alive():
            os.close(self._descriptor)

    def _keep_writing(self) -> None:
        ended = False
        while not ended:
            lines = [self._queue.get()]
            with contextlib.suppress(queue.Empty):
                while len(lines) < AT_ONCE:
                    lines.append(self._queue.get_nowait())
            ended = None in lines
            texts = [self._written(line) for line in lines if line is not None]
            missing = self._left_out + self._lost - self._told
            if missing:
                words = f"{missing} lines of the log were left out: it was not read fast enough"
                texts.append(self._written(LogLine(time.time(), "warning", SERVER, words)))
            if not texts:
                continue
            # Other text than UTF-8 has, as half a pair of surrogates.
            content = "".join(f"{text}\n" for text in texts).encode(errors="backslashreplace")
            if self._put(content):
                self._told += missing
            else:
                self._lost += len(texts) - bool(missing)

    def _put(self, content: bytes) -> bool:
        """Writes; says whether that went well. A full disk must not end the log."""
        assert self._descriptor is not None
        left = content
        while left:
            try:
                left = left[os.write(self._descriptor, left) :]
            except BlockingIOError:
                _wait_writable(self._descriptor)
            except OSError:
                if left != content:
                    # What was begun is ended, so that it spoils no other line.
                    with contextlib.suppress(OSError):
                        os.write(self._descriptor, b"\n")
                return False
        return True


class LogHandler(logging.Handler):
    """Gives the server log what the front end says by `logging`.

    Args:
        log: The log.
    """

    def __init__(self, log: ServerLog) -> None:
        super().__init__()
        self._log = log

    def emit(self, record: logging.LogRecord) -> None:
        """Takes a record; its attribute `fields` holds more of it by name."""
        try:
            message = self.format(record)
        except Exception as error:
            message = f"{record.msg!r} cannot be told: {error!r}"
        fields = getattr(record, "fields", {})
        line = LogLine(record.created, record.levelname.lower(), SERVER, message, fields)
        self._log.write(line)


class TerminalFormatter(logging.Formatter):
    """Messages for a person, without characters that steer a terminal."""

    def format(self, record: logging.LogRecord) -> str:
        """The message, in lines of its own where it has several."""
        return visible_lines(super().format(record))


@contextlib.contextmanager
def server_log(format: Format, path: Path | None) -> Iterator[ServerLog]:
    """The log of this process, which `logging` writes to until the end.

    Where the log is a file, warnings are shown on standard error as well. Where it is a standard
    stream in JSON, whatever else comes to standard error is made lines of the log.

    Args:
        format: How lines are written.
        path: See `ServerLog`.

    Raises:
        LogError: If it cannot be written.
    """
    standard = is_standard(path)
    log = ServerLog(format, path)
    handlers: list[logging.Handler] = [LogHandler(log)]
    if not standard:
        shown = logging.StreamHandler(sys.stderr)
        shown.setFormatter(TerminalFormatter("%(message)s"))
        shown.setLevel(logging.WARNING)
        handlers.append(shown)
    root, requests = logging.getLogger(), logging.getLogger(REQUESTS_LOGGER)
    level = requests.level
    requests.setLevel(logging.INFO)
    for handler in handlers:
        root.addHandler(handler)
    logging.captureWarnings(True)
    try:
        with _standard_error(log) if standard and format == "json" else contextlib.nullcontext():
            yield log
    finally:
        logging.captureWarnings(False)
        for handler in handlers:
            root.removeHandler(handler)
        requests.setLevel(level)
        log.close()


@contextlib.contextmanager
def _standard_error(log: ServerLog) -> Iterator[None]:
    """Makes lines of the log of what this process, and libraries in it, write to standard error."""
    output, before = log.output(SERVER), os.dup(2)
    with output.writing() as descriptor:
        os.dup2(descriptor, 2)
    try:
        yield
    finally:
        sys.stderr.flush()
        os.dup2(before, 2)
        os.close(before)
        output.wait_ended(CLOSE_TIMEOUT_S)


def is_standard(path: Path | None) -> bool:
    """Whether a log is a standard stream of this process."""
    return path is not None and str(path) in STANDARD_STREAMS


def visible_lines(text: str) -> str:
    """A text of several lines without characters that steer a terminal."""
    return "\n".join(map(printable, text.split("\n")))


def _opened(path: Path) -> int:
    """A descriptor for appending.

    A standard stream is taken as it is. Opened by its name it fails where it is a socket, as under
    systemd, and begins at the front of the file where it is one.
    """
    descriptor = STANDARD_STREAMS.get(str(path))
    if descriptor is not None:
        return os.dup(descriptor)
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.is_file():
        os.truncate(path, 0)
    return os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o666)


def _wait_writable(descriptor: int) -> None:
    waiting = select.poll()
    waiting.register(descriptor, select.POLLOUT)
    waiting.poll()
