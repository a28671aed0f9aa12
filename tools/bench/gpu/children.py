"""Runs a part of the benchmark in a process of its own, so that its memory is free afterwards."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from reelserve.tools.bench.gpu.state import Budget, OutOfBudgetError, Result
from reelserve.tools.results_file import write_json

LEFT_OVER_S = 10.0
"""Part of the budget that is kept back, so that what is interrupted ends in time."""
END_S = 8.0
"""How long an interrupted process has before it is killed."""
TAIL_LINES = 5


class ChildError(RuntimeError):
    """A process failed; the message holds the end of its log."""


def run_child(command: Sequence[str], log: Path, budget: Budget) -> float:
    """Runs a command to its end, or to that of the budget.

    Args:
        command: Program and arguments.
        log: Its output is added to this file.
        budget: When it ends, the command is interrupted, with all that it has started.

    Returns:
        Seconds that it took.

    Raises:
        ChildError: If it fails.
        OutOfBudgetError: If it was interrupted.
    """
    started = time.monotonic()
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("ab") as output:
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            # Its own group, to be ended as a whole.
            start_new_session=True,
        )
        left_s = budget.left_s
        try:
            status = process.wait(None if left_s is None else max(0.0, left_s - LEFT_OVER_S))
        except subprocess.TimeoutExpired:
            raise OutOfBudgetError(f"{command[0]} did not end within the budget") from None
        finally:
            end_group(process)
    if status != 0:
        tail = log.read_text(errors="replace").strip().splitlines()[-TAIL_LINES:]
        raise ChildError(f"{' '.join(command[:3])} ended with status {status}: {' / '.join(tail)}")
    return time.monotonic() - started


def run_module(module: str, job: object, folder: Path, budget: Budget) -> Result:
    """Runs `python -m module JOB RESULT`, two JSON files.

    Args:
        module: Module of this package.
        job: Content of the first file.
        folder: For the files and the log.
        budget: As in `run_child`.

    Returns:
        Content of the second file.
    """
    name = module.rpartition(".")[2]
    job_file, result_file = folder / f"{name}_job.json", folder / f"{name}_result.json"
    write_json(job_file, job)
    result_file.unlink(missing_ok=True)
    command = [sys.executable, "-m", module, str(job_file), str(result_file)]
    run_child(command, folder / f"{name}.log", budget)
    result: Result = json.loads(result_file.read_text())
    return result


def end_group(process: subprocess.Popen[bytes]) -> None:
    """Interrupts a process, then kills what is left of its group."""
    if process.poll() is None:
        process.send_signal(signal.SIGINT)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(END_S)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
