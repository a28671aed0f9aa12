"""Runs a tool that tests need and a machine may lack."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path

TIMEOUT_S = 300


class ToolError(RuntimeError):
    """A tool cannot be had or fails; the message says why, in a line."""


def tool_output(
    command: Sequence[str], folder: Path, is_error: Callable[[str], bool], stdin: str = ""
) -> str:
    """Runs a command in `folder` and returns what it prints.

    Args:
        command: Program and arguments.
        folder: Where it runs.
        is_error: Tells the lines of its errors, the first of which is quoted.
        stdin: What it reads.

    Raises:
        ToolError: If it fails.
    """
    try:
        done = subprocess.run(
            command,
            cwd=folder,
            env={**os.environ, "LC_ALL": "C"},
            input=stdin,
            capture_output=True,
            text=True,
            timeout=TIMEOUT_S,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise ToolError(str(error)) from None
    if done.returncode:
        lines = done.stderr.strip().splitlines() or [f"{command[0]} ended with {done.returncode}"]
        raise ToolError(next(filter(is_error, lines), lines[-1]))
    return done.stdout
