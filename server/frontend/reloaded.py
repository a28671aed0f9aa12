"""Files that may be replaced while a service runs; what was read last without a fault is in use."""

from __future__ import annotations

import logging
import os
import stat
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Generic, TypeVar

MAX_FILE_BYTES = 2**20
"""Largest file of keys or certificates that is read."""

_log = logging.getLogger(__name__)

Content = TypeVar("Content")


class DoorError(RuntimeError):
    """The service cannot be opened as asked; the message names option, file and reason."""


@dataclass(frozen=True)
class OptionFile:
    """A file that an option names.

    Args:
        option: As `--tls-key`.
        path: The file.
    """

    option: str
    path: Path

    def error(self, problem: str) -> DoorError:
        """What is wrong with it."""
        return DoorError(f"{self.option} is {self.path}, which {problem}")

    def read(self) -> bytes:
        """Its content.

        Raises:
            DoorError: If it cannot be read, is no regular file or is too large.
        """
        try:
            # A pipe without a writer would otherwise keep the start waiting.
            opened = os.open(self.path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
            with open(opened, "rb") as file:
                if not stat.S_ISREG(os.fstat(opened).st_mode):
                    raise self.error("is no regular file; it must be one that can be read again")
                content = file.read(MAX_FILE_BYTES + 1)
        except OSError as error:
            raise self.error(f"cannot be read: {error.strerror}") from None
        if len(content) > MAX_FILE_BYTES:
            raise self.error(f"is larger than the limit of {MAX_FILE_BYTES} bytes")
        return content


class Reloaded(Generic[Content]):
    """The content of files that belong together.

    Args:
        files: The files, by any names.
        parse: Makes of their bytes what is used.

    Raises:
        DoorError: If that cannot be done at the start.
    """

    def __init__(
        self,
        files: Mapping[str, OptionFile],
        parse: Callable[[Mapping[str, bytes]], Content],
    ) -> None:
        self._files, self._parse = files, parse
        self._used = self._read()
        self._said = ""
        self.value = parse(self._used)
        """In use now."""

    def look(self) -> None:
        """Reads the files again; what cannot be used is logged, and the old content stays."""
        said = ""
        try:
            read = self._read()
            if read != self._used:
                self.value, self._used = self._parse(read), read
                names = " and ".join(str(file.path) for file in self._files.values())
                _log.warning("%s: read again, and used from now on", names)
        except (DoorError, OSError) as error:
            # `OSError`: no file could be opened at this moment, as under many connections.
            said = str(error)
            # Once, not at every look.
            if said != self._said:
                _log.warning("%s; what was read before stays in use", said)
        self._said = said

    def _read(self) -> dict[str, bytes]:
        return {name: file.read() for name, file in self._files.items()}
