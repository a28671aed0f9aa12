"""What a process writes, read line by line without ever letting it wait."""

from __future__ import annotations

import contextlib
import fcntl
import os
import select
import threading
from collections import deque
from collections.abc import Callable, Iterator

PIPE_BYTES = 2**20
"""Room of the pipe, where the system gives as much: for a reader that gets no turn for a while."""
CHUNK_BYTES = 2**16
CHUNKS_AT_ONCE = 16
MAX_LINE_BYTES = 2**14
"""A longer line goes on in a line of its own."""
KEPT_BYTES = 2**20
"""What is kept of the end, to say why a process has failed."""


class ProcessOutput:
    """A pipe for the output of a process and its children, and a thread that reads it.

    The thread ends when the last process that could write has ended.

    Args:
        take: Gets each line without its end; must not wait.
    """

    def __init__(self, take: Callable[[str], None]) -> None:
        self._take = take
        self._lock = threading.Lock()
        self._kept: deque[bytes] = deque()
        self._kept_bytes = 0
        self._partial = b""
        self._closed = False
        self._read, self._write = os.pipe()
        os.set_blocking(self._read, False)
        with contextlib.suppress(OSError):
            fcntl.fcntl(self._write, fcntl.F_SETPIPE_SZ, PIPE_BYTES)
        self._thread = threading.Thread(target=self._keep_reading, daemon=True)
        self._thread.start()

    @contextlib.contextmanager
    def writing(self) -> Iterator[int]:
        """The descriptor to start a process with; closed here afterwards."""
        try:
            yield self._write
        finally:
            os.close(self._write)

    def text(self) -> str:
        """The end of what was written, all that lies in the pipe included."""
        self._pump()
        with self._lock:
            lines = [*self._kept, *([self._partial] if self._partial else [])]
            return b"\n".join(lines).decode(errors="replace")

    def wait_ended(self, timeout_s: float) -> None:
        """Waits until nobody writes any more."""
        self._thread.join(timeout_s)

    def _keep_reading(self) -> None:
        waiting = select.poll()
        waiting.register(self._read, select.POLLIN)
        while self._pump():
            waiting.poll()

    def _pump(self) -> bool:
        """Reads what is there; False when nobody can write any more."""
        with self._lock:
            for _ in range(CHUNKS_AT_ONCE):
                if self._closed:
                    return False
                try:
                    chunk = os.read(self._read, CHUNK_BYTES)
                except BlockingIOError:
                    return True
                if chunk:
                    self._add(chunk)
                    continue
                self._closed = True
                os.close(self._read)
                if self._partial:
                    self._told(self._partial)
                    self._partial = b""
            return not self._closed

    def _add(self, chunk: bytes) -> None:
        *lines, self._partial = (self._partial + chunk).split(b"\n")
        for line in lines:
            self._told(line)
        while len(self._partial) > MAX_LINE_BYTES:
            self._told(self._partial[:MAX_LINE_BYTES])
            self._partial = self._partial[MAX_LINE_BYTES:]

    def _told(self, line: bytes) -> None:
        self._kept.append(line)
        self._kept_bytes += len(line) + 1
        while self._kept_bytes > KEPT_BYTES:
            self._kept_bytes -= len(self._kept.popleft()) + 1
        for start in range(0, max(1, len(line)), MAX_LINE_BYTES):
            part = line[start : start + MAX_LINE_BYTES].rstrip(b"\r")
            self._take(part.decode(errors="replace"))
