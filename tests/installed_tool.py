"""Tools that tests need and this project does not depend on: each lives in a folder of `build/`."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from tests.tool_output import ToolError

UNAVAILABLE = "unavailable.txt"


@dataclass(frozen=True)
class InstalledTool:
    """A tool, how it is had, and why there is none where it cannot be had.

    Args:
        name: What is missed without it.
        made_by: The command that installs it.
        fill: Fills an empty folder, by its absolute path, and tries what it has put there.
        mark: A file or folder that is there when `fill` has ended.
    """

    name: str
    made_by: str
    fill: Callable[[Path], None]
    mark: str

    def install(self, folder: Path) -> None:
        """Fills `folder`; what was there is removed, and nothing outside changes.

        Raises:
            ToolError: If it cannot be had here. The reason stays in `folder`, too.
        """
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        try:
            self.fill(folder.resolve())
        except ToolError as error:
            (folder / UNAVAILABLE).write_text(str(error))
            raise

    def check(self, folder: Path) -> None:
        """Raises `ToolError`, with the reason of the last `install`, if it is not in `folder`."""
        reason = folder / UNAVAILABLE
        if reason.exists():
            raise ToolError(reason.read_text())
        if not (folder / self.mark).exists():
            raise ToolError(f"not installed, which `{self.made_by}` does")

    def main(self, install: Callable[[Path], None] | None = None) -> None:
        """Installs into the folder that the command line names; ends with 1 if it cannot be had."""
        try:
            (install or self.install)(Path(sys.argv[1]))
        except ToolError as error:
            sys.exit(f"No {self.name}, so its tests are skipped: {error}")
