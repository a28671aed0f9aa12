"""Exports a case's checkpoint as a user would, taking over what another case has exported."""

from __future__ import annotations

import itertools
import os
import shutil
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path

from reelserve.export.parity import ENGINE_STAGES
from reelserve.export.repository import RECORD_FILE, ExportRecord, ModelRepository
from reelserve.runtimes.export_lock import LOCK_FILE
from reelserve.runtimes.repository_files import VERSION
from reelserve.tools.bench.gpu.cases import BUNDLED, Case
from reelserve.tools.bench.gpu.state import Result


def repository_of(case: Case, work: Path) -> Path:
    """The model repository of a case."""
    return work / "repositories" / case.name


def prepare_repository(case: Case, siblings: Iterable[Case], work: Path) -> Path:
    """Makes a repository, with links to graphs of other cases that may be up to date.

    The exporter looks at each by its fingerprint and replaces what does not fit.

    Args:
        case: Whose repository it is.
        siblings: Other cases, exported or not.
        work: Folder of all of them.
    """
    folder = repository_of(case, work)
    folder.mkdir(parents=True, exist_ok=True)
    ModelRepository(folder).lay_out()
    for stage in ENGINE_STAGES:
        key = case.stage_key(stage)
        for sibling in siblings:
            if key is not None and key == sibling.stage_key(stage):
                own = folder / stage / VERSION
                _link_stage(repository_of(sibling, work) / stage / VERSION, own)
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
    pairs = ((f"--{name}", str(value)) for name, value in options.items())
    return ["reelserve", "export", *itertools.chain.from_iterable(pairs)]


def is_exported(repository: Path) -> bool:
    """Whether an export has come to its end and all of its files are still there."""
    records = [_record(repository, stage) for stage in ENGINE_STAGES]
    return (repository / LOCK_FILE).is_file() and all(
        record is not None
        and all((repository / stage / VERSION / file.name).is_file() for file in record.files)
        for stage, record in zip(ENGINE_STAGES, records, strict=True)
    )


def exported_stages(repository: Path) -> Result:
    """What the exporter wrote down of every stage of a whole export."""
    stages: Result = {}
    for stage in ENGINE_STAGES:
        record = _record(repository, stage)
        assert record is not None, "the export is whole"
        stages[stage] = {
            "num_parameters": record.num_parameters,
            "size_bytes": record.size_bytes,
            "seconds": record.seconds,
            "parity": asdict(record.parity),
        }
    return stages


def release_stages(repository: Path, stages: Iterable[str]) -> None:
    """Deletes graphs, whose gigabytes the next case needs; the repository is not whole then."""
    for stage in stages:
        record = _record(repository, stage)
        if record is not None:
            (repository / LOCK_FILE).unlink(missing_ok=True)
            for name in (RECORD_FILE, *(file.name for file in record.files)):
                (repository / stage / VERSION / name).unlink(missing_ok=True)


def release_denoiser_weights(checkpoint: Path) -> None:
    """Deletes a checkpoint but for the components that it only links to."""
    shutil.rmtree(checkpoint, ignore_errors=True)


def _record(repository: Path, stage: str) -> ExportRecord | None:
    return ExportRecord.load(repository / stage / VERSION / RECORD_FILE)


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
