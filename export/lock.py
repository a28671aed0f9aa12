"""Describes a finished export, for the server to check."""

from __future__ import annotations

from collections.abc import Mapping

from reelserve.export.engines import Engine
from reelserve.export.families import CheckpointFamily
from reelserve.export.fingerprints import combined
from reelserve.export.parity import ENGINE_STAGES
from reelserve.export.repository import ExportRecord
from reelserve.export.stages import Precision
from reelserve.runtimes.export_lock import ArtefactFile, ExportLock, LockedStage


def lock_of(
    family: CheckpointFamily,
    engine: Engine,
    precision: Precision,
    records: Mapping[str, ExportRecord],
    served: tuple[ArtefactFile, ...],
) -> ExportLock:
    """The lock of a repository.

    Args:
        family: The checkpoint.
        engine: Engine that built the stages.
        precision: Precision of the stages.
        records: Records of all engine stages, by stage.
        served: Every other file of the repository.
    """
    files = [path for stage in ENGINE_STAGES for path in family.source(stage).files]
    return ExportLock(
        checkpoint=family.spec().name,
        checkpoint_sha256=combined(family.tokenizer().hex(), files),
        family=family.name,
        engine=engine.name,
        config_name=engine.config_name,
        precision=precision,
        architecture=engine.architecture(),
        versions=engine.versions(),
        bound_versions=engine.bound_versions(),
        stages={
            name: LockedStage(records[name].fingerprint, records[name].files)
            for name in ENGINE_STAGES
        },
        served=served,
    )
