"""Exports every engine stage of a checkpoint and checks the graphs against torch."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from reelserve.export.engines import Engine
from reelserve.export.families import Family
from reelserve.export.parity import (
    MIN_FRAMES_PSNR_DB,
    ParityCase,
    ParityCheck,
    StageParity,
    StageRunner,
    compare_stage,
    frames_psnr,
    torch_runner,
)
from reelserve.export.repository import (
    ExportRecord,
    ModelRepository,
    fingerprint,
    partial_file,
    write_file,
)
from reelserve.export.stages import ExportStage
from reelserve.pipeline.checkpoint import FILE_NAME as SPEC_FILE
from reelserve.pipeline.contract import STAGES

ENGINE_STAGES = tuple(name for name, stage in STAGES.items() if stage.engine)
SPEC_STAGES = ("prompt_processor", "video_diffusion", "video_encoder")
TOKENIZER_STAGE = "prompt_processor"
TOKENIZER_FILE = "tokenizer.json"
MAX_RELATIVE_ERROR = 1e-3
"""Of a graph with real-valued output, over the largest value."""
MAX_LEVEL_ERROR = 2
"""Of a graph with frames as output, in levels of 255: rounding may fall either way."""


class ParityError(Exception):
    """A graph does not compute what torch computes."""


@dataclass(frozen=True)
class ExportResult:
    """What an export did.

    Args:
        records: By stage.
        exported: Stages whose graph was made anew.
        frames_psnr_db: Of the finished clip, graphs against torch; None if none was made.
    """

    records: dict[str, ExportRecord]
    exported: tuple[str, ...]
    frames_psnr_db: float | None


class Exporter:
    """Exports one checkpoint for one engine.

    Args:
        family: The checkpoint.
        engine: Builds the graphs.
        repository: Receives them.
        progress: Called with the name of each stage before it is exported.
        case: The clip that graphs and torch are compared on.
    """

    def __init__(
        self,
        family: Family,
        engine: Engine,
        repository: ModelRepository,
        progress: Callable[[str], None] = lambda _: None,
        case: ParityCase | None = None,
    ) -> None:
        self._family = family
        self._engine = engine
        self._repository = repository
        self._progress = progress
        self._case = case or ParityCase()

    def run(self, *, force: bool = False) -> ExportResult:
        """Exports what is not up to date.

        Args:
            force: Exports every stage.

        Raises:
            FileNotFoundError: If a component is missing.
            ValueError: If a component does not fit its configuration.
            ParityError: If a graph differs from torch; the repository keeps the old graphs.
        """
        prints = self._fingerprints()
        records = {} if force else self._current_records(prints)
        outdated = [name for name in ENGINE_STAGES if name not in records]
        frames_psnr_db = None
        if outdated:
            with contextlib.ExitStack() as partials:
                stages = {name: self._family.build(name) for name in ENGINE_STAGES}
                paths = {name: self._graph(name) for name in ENGINE_STAGES}
                for name in outdated:
                    paths[name] = partials.enter_context(partial_file(paths[name]))
                    records[name] = self._export(stages[name], paths[name], prints[name])
                frames_psnr_db = self._check(stages, paths, outdated, records)
                for name in outdated:
                    os.replace(paths[name], self._graph(name))
                    self._repository.save_record(name, records[name])
        self._write_spec()
        ordered = {name: records[name] for name in ENGINE_STAGES}
        return ExportResult(ordered, tuple(outdated), frames_psnr_db)

    def _graph(self, stage: str) -> Path:
        return self._repository.version_folder(stage) / self._engine.file_name

    def _fingerprints(self) -> dict[str, str]:
        versions = self._engine.versions()
        return {
            name: fingerprint(name, self._family.source(name), versions) for name in ENGINE_STAGES
        }

    def _current_records(self, prints: dict[str, str]) -> dict[str, ExportRecord]:
        found = {
            name: self._repository.current_record(name, self._engine.file_name, value)
            for name, value in prints.items()
        }
        return {name: record for name, record in found.items() if record is not None}

    def _export(self, stage: ExportStage, path: Path, print_: str) -> ExportRecord:
        self._progress(stage.name)
        start = time.perf_counter()
        self._engine.build(stage, path)
        return ExportRecord(
            fingerprint=print_,
            num_parameters=stage.num_parameters,
            size_bytes=path.stat().st_size,
            seconds=round(time.perf_counter() - start, 2),
            parity=StageParity(0.0, 0.0),
        )

    def _check(
        self,
        stages: dict[str, ExportStage],
        paths: dict[str, Path],
        outdated: list[str],
        records: dict[str, ExportRecord],
    ) -> float:
        """Compares the graphs with torch and completes the records of the new ones."""
        self._progress("parity")
        spec = self._family.spec(self._engine.name)
        check = ParityCheck(spec, self._family.tokenizer(), self._case)
        runners = {name: self._graph_runner(stages[name], path) for name, path in paths.items()}
        reference = check.generate({name: torch_runner(stages[name]) for name in stages})
        for name in outdated:
            parity = compare_stage(reference[name], runners[name])
            _require_parity(stages[name], parity)
            records[name] = replace(records[name], parity=parity)
        psnr_db = frames_psnr(check.generate(runners), reference)
        if psnr_db < MIN_FRAMES_PSNR_DB:
            raise ParityError(
                f"frames from the exported graphs have {psnr_db:.1f} dB against torch; the limit "
                f"is {MIN_FRAMES_PSNR_DB:g} dB"
            )
        return psnr_db

    def _graph_runner(self, stage: ExportStage, path: Path) -> StageRunner:
        names = [tensor.name for tensor in stage.contract.inputs]

        def run(*inputs: NDArray[np.generic]) -> NDArray[np.generic]:
            return self._engine.run(path, dict(zip(names, inputs, strict=True)))[0]

        return run

    def _write_spec(self) -> None:
        """Gives the Python stages what they must know of the checkpoint."""
        spec = self._family.spec(self._engine.name)
        for stage in SPEC_STAGES:
            write_file(self._repository.version_folder(stage) / SPEC_FILE, spec.to_json().encode())
        tokenizer = self._repository.version_folder(TOKENIZER_STAGE) / TOKENIZER_FILE
        write_file(tokenizer, self._family.tokenizer())


def _require_parity(stage: ExportStage, parity: StageParity) -> None:
    frames = stage.contract.outputs[0].dtype == "UINT8"
    limit = MAX_LEVEL_ERROR if frames else MAX_RELATIVE_ERROR * parity.max_abs_value
    # Negated so that NaN fails too.
    if not parity.max_abs_error <= limit:
        raise ParityError(
            f"stage {stage.name}: the exported graph differs from torch by up to "
            f"{parity.max_abs_error:.3g}; the limit is {limit:.3g}"
        )
