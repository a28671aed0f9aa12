"""Exports a case's checkpoint as a user would, taking over what another case has exported."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterable
from pathlib import Path

from reelserve.commands.bench_gpu.cases import BUNDLED, Case
from reelserve.commands.bench_gpu.in_process import GRAPH_STAGES, VERSION
from reelserve.commands.bench_gpu.state import Budget, OutOfBudgetError, Result
from reelserve.export.repository import RECORD_FILE

TEMPLATE = Path(__file__).parents[2] / "model_repository"
NOT_COPIED = ("*.onnx", "*.onnx.data", "*.pt2", "*.plan", "*.safetensors", "*.json", "__pycache__")
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
    if not folder.is_dir():
        shutil.copytree(TEMPLATE, folder, ignore=shutil.ignore_patterns(*NOT_COPIED))
    for stage in GRAPH_STAGES:
        own = folder / stage / VERSION
        if (own / RECORD_FILE).exists():
            continue
        for sibling in siblings:
            found = repository_of(sibling, work) / stage / VERSION
            key = case.stage_key(stage)
            if (
                key is not None
                and key == sibling.stage_key(stage)
                and (found / RECORD_FILE).exists()
            ):
                _link_files(found, own)
                break
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
    """What the exporter wrote down of every stage: parameters, bytes, seconds, parity."""
    stages: Result = {}
    for stage in GRAPH_STAGES:
        folder = repository / stage / VERSION
        record = json.loads((folder / RECORD_FILE).read_text())
        names = ("num_parameters", "seconds", "parity")
        files = [path for path in graph_files(folder) if path.name != RECORD_FILE]
        stages[stage] = {
            **{name: record[name] for name in names},
            "size_bytes": sum(path.stat().st_size for path in files),
        }
    return stages


def graph_files(folder: Path) -> list[Path]:
    """Files that an export has put into a version folder."""
    return [path for path in sorted(folder.iterdir()) if path.is_file() and path.name[0] != "."]


def end_group(process: subprocess.Popen[bytes]) -> None:
    """Interrupts a process, then kills what is left of its group."""
    if process.poll() is None:
        process.send_signal(signal.SIGINT)
        try:
            process.wait(END_S)
        except subprocess.TimeoutExpired:
            pass
    try:
        os.killpg(process.pid, signal.SIGKILL)
    except ProcessLookupError:
        pass
    process.wait()


def _link_files(source: Path, target: Path) -> None:
    """Hard links: nothing writes into these files, they are only replaced."""
    target.mkdir(parents=True, exist_ok=True)
    # The record last: without it the files are not taken for an export.
    for path in sorted(graph_files(source), key=lambda path: path.name == RECORD_FILE):
        (target / path.name).unlink(missing_ok=True)
        os.link(path, target / path.name)
