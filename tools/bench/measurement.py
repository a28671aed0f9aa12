"""Runs a measurement for a command, and writes its results file."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterable
from typing import Any

from rich.console import Console, RenderableType

from reelserve.client import ReelserveError
from reelserve.client.cli import FAILURE, OK, error_console
from reelserve.server.launch.installation import InstallationError
from reelserve.server.launch.triton_process import ServerError
from reelserve.tools.results_file import write_json

Measured = dict[str, Any]


def run_measurement(
    command: str,
    arguments: argparse.Namespace,
    measure: Callable[[argparse.Namespace, Console], Measured],
    summary: Callable[[Measured], Iterable[RenderableType]],
) -> int:
    """Measures, writes `arguments.output` and shows a summary.

    Args:
        command: Name of the command, for messages.
        arguments: Its arguments, with the file to write as `output`.
        measure: Gives the results; is told where to say how far it is.
        summary: Gives what is shown of the results.

    Returns:
        Exit status of the command.
    """
    console = error_console()
    try:
        results = measure(arguments, console)
        write_json(arguments.output, results)
    except (InstallationError, ServerError, ReelserveError, OSError) as error:
        console.print(f"reelserve {command}: {error}")
        return FAILURE
    for shown in summary(results):
        console.print(shown)
    console.print(str(arguments.output))
    return OK
