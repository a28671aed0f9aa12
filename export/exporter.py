"""Exports the engine stages of a checkpoint one by one, each checked before it is taken over."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from reelserve.export.builds import Builder
from reelserve.export.engines import Engine, EngineError
from reelserve.export.families import CheckpointFamily
from reelserve.export.families.ranges import check_limits
from reelserve.export.fingerprints import graph_fingerprint
from reelserve.export.lock import lock_of
from reelserve.export.parity import ENGINE_STAGES, ParityCase, ParityCheck, require_frames
from reelserve.export.repository import ExportRecord, ModelRepository, update_file
from reelserve.export.resources import check_resources
from reelserve.export.stage_exporter import Progress, StageExporter
from reelserve.export.stages import Precision
from reelserve.pipeline.checkpoint import FILE_NAME as SPEC_FILE
from reelserve.pipeline.quality import psnr
from reelserve.runtimes.export_lock import LOCK_FILE
from reelserve.runtimes.repository_files import PARITY_CLIPS, VERSION

SPEC_STAGES = ("prompt_processor", "video_diffusion", "video_encoder")
TOKENIZER_STAGE = "prompt_processor"
TOKENIZER_FILE = "tokenizer.json"


@dataclass(frozen=True)
class ExportResult:
    """What an export did.

    Args:
        records: Record of each stage, by stage.
        exported: Stages whose graph was built by this run.
        frames_psnr_db: PSNR of the finished clip, graphs against torch; None if none was made.
        updated: Configs and Python stages that were replaced, from another version.
    """

    records: dict[str, ExportRecord]
    exported: tuple[str, ...]
    frames_psnr_db: float | None
    updated: tuple[str, ...] = ()


class Exporter:
    """Exports one checkpoint for one engine.

    Args:
        family: The checkpoint.
        engine: Builds the graphs.
        repository: Receives them.
        progress: Called before every part of the work.
        case: The clip that graphs and torch are compared on.
        precision: Precision of the stages; None: the engine's first.
        fp32_stages: Engine stages that are in fp32 all the same, because their values leave the
            range of a lower precision. A stage's record names what it was compared with.
        jobs: Stages that are built at once; above 1, in processes of their own.
    """

    def __init__(
        self,
        family: CheckpointFamily,
        engine: Engine,
        repository: ModelRepository,
        progress: Progress = lambda what, done, total: None,
        case: ParityCase | None = None,
        *,
        precision: Precision | None = None,
        fp32_stages: tuple[str, ...] = (),
        jobs: int = 1,
    ) -> None:
        self._family, self._engine, self._repository = family, engine, repository
        self._progress = progress
        self._case = case or ParityCase()
        self._precision = precision or engine.precisions[0]
        self._fp32_stages = fp32_stages
        self._jobs = jobs

    def run(self, *, force: bool = False) -> ExportResult:
        """Exports what is not up to date.

        A stage that has passed its check stays, whatever happens after it: the next run goes on
        with the one after. Until all are there, the repository has no lock and is not served.

        Args:
            force: Exports every stage.

        Raises:
            EngineError: If the engine is not installed or has not this precision.
            FileNotFoundError: If a component is missing.
            ExportFolderError: If the folder cannot be exported into.
            ResourceError: If there is not enough memory or disk.
            ValueError: If a component does not fit its configuration.
            BuildError: If a stage cannot be built.
            ParityError: If a graph differs from torch; the repository keeps the old graph.
        """
        self._check_engine()
        check_limits(self._family.spec())
        self._progress("reading the checkpoint", 0, 0)
        prints = self._fingerprints()
        with self._repository.exclusive():
            updated = self._repository.lay_out()
            records = {} if force else self._current_records(prints)
            outdated = tuple(name for name in ENGINE_STAGES if name not in records)
            frames_psnr_db = None
            if outdated or not self._locked(prints):
                frames_psnr_db = self._export(outdated, prints, records)
            self._finish(records)
        ordered = {name: records[name] for name in ENGINE_STAGES}
        return ExportResult(ordered, outdated, frames_psnr_db, updated)

    def _check_engine(self) -> None:
        if self._precision not in self._engine.precisions:
            raise EngineError(
                f"precision is {self._precision}; engine {self._engine.name} has "
                f"{', '.join(self._engine.precisions)}"
            )
        self._engine.check(self._precision)
        unknown = sorted(set(self._fp32_stages) - set(ENGINE_STAGES))
        if unknown:
            raise ValueError(
                f"fp32 stages are {', '.join(unknown)}; they must be some of "
                f"{', '.join(ENGINE_STAGES)}"
            )

    def _fingerprints(self) -> dict[str, str]:
        return {
            name: graph_fingerprint(self._family, self._engine, name, self._precision_of(name))
            for name in ENGINE_STAGES
        }

    def _precision_of(self, stage: str) -> Precision:
        return "fp32" if stage in self._fp32_stages else self._precision

    def _current_records(self, prints: Mapping[str, str]) -> dict[str, ExportRecord]:
        found = {
            name: self._repository.current_record(name, self._engine.file_name, value)
            for name, value in prints.items()
        }
        return {name: record for name, record in found.items() if record is not None}

    def _locked(self, prints: Mapping[str, str]) -> bool:
        """Whether an earlier run has come to its end with these stages."""
        lock = self._repository.lock()
        return lock is not None and prints == {
            name: stage.fingerprint for name, stage in lock.stages.items()
        }

    def _export(
        self, outdated: tuple[str, ...], prints: Mapping[str, str], records: dict[str, ExportRecord]
    ) -> float:
        """Builds and checks stages; completes `records`; returns the finished clip's PSNR."""
        target = self._engine.target(self._precision)
        for name in outdated:
            self._progress(f"checking the weights of {name}", 0, len(outdated))
            self._family.check(name)
        sources = {name: self._family.source(name) for name in outdated}
        check_resources(sources, target, self._jobs, self._repository.folder)
        check = ParityCheck(self._family.spec(), self._family.tokenizer(), self._case)
        builder = Builder(self._family, self._engine, target, self._fp32_stages)
        chain = StageExporter(builder, self._repository, check, prints, self._progress)
        clips = chain.run(outdated, records, self._jobs)
        psnr_db = psnr(clips.graph, clips.torch)
        require_frames(psnr_db, self._precision)
        return psnr_db

    def _finish(self, records: Mapping[str, ExportRecord]) -> None:
        """Gives the Python stages what they must know of the checkpoint, then locks."""
        spec = replace(self._family.spec(), engine=self._engine.name).to_json().encode()
        contents = {f"{stage}/{VERSION}/{SPEC_FILE}": spec for stage in SPEC_STAGES}
        contents[f"{TOKENIZER_STAGE}/{VERSION}/{TOKENIZER_FILE}"] = self._family.tokenizer()
        for name, content in contents.items():
            update_file(self._repository.folder / name, content)
        for stage in ENGINE_STAGES:
            (self._repository.version_folder(stage) / PARITY_CLIPS).unlink(missing_ok=True)
        served = self._repository.served_files(records, contents)
        lock = lock_of(self._family, self._engine, self._precision, records, served)
        update_file(self._repository.folder / LOCK_FILE, lock.to_json().encode())
