"""Exports a case's checkpoint as a user would, taking over what another case has exported."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path

from reelserve.commands.bench_gpu.cases import BUNDLED, Case
from reelserve.commands.bench_gpu.state import Budget, OutOfBudgetError, Result
from reelserve.export.parity import ENGINE_STAGES
from reelserve.export.repository import RECORD_FILE, VERSION, ExportRecord, ModelRepository

LEFT_OVER_S = 10.0
"""Kept of the budget, so that an export that is interrupted ends in time."""
END_S = 8.0
"""That an interrupted export has before it is killed."""


class ExportFailedError(RuntimeError):
    """The exporter refused or failed; its own words are in the log."""


def repository_of(case: Case, work: Path) -> Path:
    """The model repository of a case."""
    return work / "repositories" / case.name


def prepare_repository(case: Case, siblings: Iterable[Case], work: Path) -> Path:
    """Makes a repository of configs and Python stages, with links to graphs that may be up to date.

    The exporter looks at each by its fingerprint and replaces what does not fit.

    Args:
        case: Whose repository it is.
        siblings: Other cases that may have been exported.
        work: Folder of all of them.
    """
    folder = repository_of(case, work)
    folder.mkdir(parents=True, exist_ok=True)
    ModelRepository(folder).lay_out()
    for stage in ENGINE_STAGES:
        key = case.stage_key(stage)
        for sibling in siblings:
            if key is not None and key == sibling.stage_key(stage):
                _link_stage(repository_of(sibling, work) / stage / VERSION, folder / stage / VERSION)
    return folder


def export_command(
    case: Case, checkpoint: Path, repository: Path, engine: str, precision: str, jobs: int
) -> list[str]:
    """The command that exports a case, as it would be typed."""
    size = {"num-frames": case.num_frames, "fps": case.fps}
    if case.layout != BUNDLED:
        size |= {"height": case.height, "width": case.width}
    options = {
        "checkpoint": checkpoint,
        "model-repository": repository,
        "engine": engine,
        "precision": precision,
        "jobs": jobs,
        **size,
    }
    return ["reelserve", "export", *(f"--{name}={value}" for name, value in options.items())]


def run_export(command: list[str], log: Path, budget: Budget) -> float:
    """Runs an export, which goes on where an earlier one was interrupted.

    Args:
        command: Of `export_command`.
        log: Its output is added to this file.
        budget: When it ends, the export is interrupted.

    Returns:
        Seconds that it took.

    Raises:
        ExportFailedError: If it fails.
        OutOfBudgetError: If it was interrupted; what is exported is kept.
    """
    binary = Path(sys.executable).with_name(command[0])
    started = time.monotonic()
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("ab") as output:
        process = subprocess.Popen(
            [str(binary), *command[1:]],
            stdout=output,
            stderr=subprocess.STDOUT,
            # Its own group: it compiles in processes of its own.
            start_new_session=True,
        )
        left_s = budget.left_s
        try:
            status = process.wait(None if left_s is None else max(0.0, left_s - LEFT_OVER_S))
        except subprocess.TimeoutExpired:
            raise OutOfBudgetError("the export did not end within the budget") from None
        finally:
            end_group(process)
    if status != 0:
        tail = log.read_text(errors="replace").strip().splitlines()[-5:]
        raise ExportFailedError(f"{' '.join(command)}: status {status}; {log}: {' / '.join(tail)}")
    return time.monotonic() - started


def exported_stages(repository: Path) -> Result:
    """What the exporter wrote down of every stage."""
    stages: Result = {}
    for stage in ENGINE_STAGES:
        record = ExportRecord.load(repository / stage / VERSION / RECORD_FILE)
        if record is None:
            raise ExportFailedError(f"{repository / stage}: has no record of an export")
        stages[stage] = {
            "num_parameters": record.num_parameters,
            "size_bytes": record.size_bytes,
            "seconds": record.seconds,
            "parity": asdict(record.parity),
        }
    return stages


def end_group(process: subprocess.Popen[bytes]) -> None:
    """Interrupts a process, then kills what is left of its group."""
    if process.poll() is None:
        process.send_signal(signal.SIGINT)
        try:
            process.wait(END_S)
    XX    try:
        os.killpg(process.pid, signal.SIGKILL)
    except ProcessLookupError:
        pass
    process.wait()


def _link_stage(source: Path, target: Path) -> None:
    """Hard links to an exported stage, unless there is one already.

    The exporter never writes into such a file, it replaces them.
    """
    record = ExportRecord.load(source / RECORD_FILE)
    if record is None or (target / RECORD_FILE).exists():
        return
    target.mkdir(parents=True, exist_ok=True)
    # The record last: without it the files are not taken for an export.
    for name in (*(file.name for file in record.files), RECORD_FILE):
        (target / name).unlink(missing_ok=True)
        os.link(source / name, target / name)
