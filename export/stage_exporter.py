"""Takes a clip through the stages of an export, one of them in memory at a time.

There are two clips: in one, torch computes every stage, in the other the graphs do. Each graph is
judged on the inputs that torch had, and the finished clips are compared with each other.
"""

from __future__ import annotations

import contextlib
import ctypes
import gc
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from reelserve.export.builds import Build, Builder, BuildError, build_together
from reelserve.export.engines import Engine
from reelserve.export.fingerprints import combined
from reelserve.export.parity import (
    ENGINE_STAGES,
    ParityCheck,
    StageParity,
    StageRun,
    StageRunner,
    compare_stage,
    require_parity,
    torch_runner,
)
from reelserve.export.parity_clips import ParityClips
from reelserve.export.repository import ExportRecord, ModelRepository
from reelserve.pipeline.checkpoint_files import one_line
from reelserve.pipeline.contract import STAGES
from reelserve.runtimes.export_lock import ArtefactFile

Progress = Callable[[str, int, int], None]
"""Called with the current work, the number of stages done and the number to do."""


class StageExporter:
    """Builds the outdated stages and checks all of them.

    Args:
        builder: Loads and builds the stages.
        repository: Receives the graphs that have passed.
        check: The clip.
        prints: Hash of what each stage is made from, by stage.
        progress: Called before every part of the work.
    """

    def __init__(
        self,
        builder: Builder,
        repository: ModelRepository,
        check: ParityCheck,
        prints: Mapping[str, str],
        progress: Progress,
    ) -> None:
        self._builder, self._repository, self._check = builder, repository, check
        self._prints, self._progress = prints, progress
        self._done, self._total = 0, 0

    def run(
        self, outdated: tuple[str, ...], records: dict[str, ExportRecord], jobs: int
    ) -> ParityClips:
        """Takes the clip through all stages.

        Args:
            outdated: Stages to build.
            records: Records of the other stages; those of the built ones are added.
            jobs: Stages that are built at once.

        Returns:
            The finished clips.

        Raises:
            BuildError: If a stage cannot be built.
            ParityError: If a graph differs from torch; those before it stay.
        """
        self._done, self._total = 0, len(outdated)
        with contextlib.ExitStack() as stack:
            folders = {
                name: stack.enter_context(self._repository.partial(name)) for name in outdated
            }
            builds = self._built_together(folders, jobs) if jobs > 1 else {}
            key, clips = self._check.key, None
            for name in ENGINE_STAGES:
                key = combined(key + self._prints[name])
                version = self._repository.version_folder(name)
                kept = None if name in folders else ParityClips.load(version, key)
                if kept is None:
                    kept = self._stage(name, clips, folders.get(name), builds.get(name), records)
                    kept.save(version, key)
                clips = kept
        assert clips is not None
        return clips

    def _built_together(self, folders: Mapping[str, Path], jobs: int) -> dict[str, Build]:
        def built(stage: str) -> None:
            left.remove(stage)
            if left:
                self._say(f"building {', '.join(left)}")

        left = list(folders)
        self._say(f"building {', '.join(left)}")
        return build_together(self._builder, folders, jobs, built)

    def _stage(
        self,
        name: str,
        before: ParityClips | None,
        folder: Path | None,
        build: Build | None,
        records: dict[str, ExportRecord],
    ) -> ParityClips:
        """Builds a stage if it has a folder to build into, and takes both clips through it."""
        run, build = self._torch_run(name, before, folder, build)
        path = folder or self._repository.version_folder(name)
        graph = _graph_runner(self._builder.engine, name, path)
        try:
            if folder is not None:
                checked = self._builder.engine.checked_file()
                parity = compare_stage(run, graph, self._reference(name), checked)
                require_parity(name, parity, self._builder.target_of(name).precision)
            other = self._check.run_stage(name, graph, before.graph if before else None)
        finally:
            self._builder.engine.release()
            _give_memory_back()
        if folder is not None:
            assert build is not None
            records[name] = self._record(name, build, parity, folder)
            self._repository.accept(name, folder, records[name])
            self._done += 1
        return ParityClips(run.result, other.result)

    def _torch_run(
        self, name: str, before: ParityClips | None, folder: Path | None, build: Build | None
    ) -> tuple[StageRun, Build | None]:
        """Loads a stage, builds it unless that is done, runs it and frees its weights."""
        self._say(f"loading {name}")
        start = time.perf_counter()
        stage = self._builder.load(name)
        if folder is not None and build is None:
            num_parameters = stage.num_parameters
            self._say(f"building {name}")
            self._builder.build(stage, folder)
            build = Build(num_parameters, round(time.perf_counter() - start, 2))
        self._say(f"checking {name}")
        try:
            run = self._check.run_stage(name, torch_runner(stage), before.torch if before else None)
        except (OSError, ValueError):
            raise
        except Exception as error:
            raise BuildError(f"stage {name} does not run in torch: {one_line(error)}") from error
        del stage
        _give_memory_back()
        return run, build

    def _record(self, name: str, build: Build, parity: StageParity, folder: Path) -> ExportRecord:
        graph = folder / self._builder.engine.file_name
        others = sorted(path for path in folder.iterdir() if path != graph)
        return ExportRecord(
            fingerprint=self._prints[name],
            num_parameters=build.num_parameters,
            seconds=build.seconds,
            parity=parity,
            files=tuple(ArtefactFile.of(path) for path in (graph, *others)),
        )

    def _reference(self, name: str) -> str:
        target = self._builder.target_of(name)
        return f"torch {target.precision} on {target.device}"

    def _say(self, what: str) -> None:
        self._progress(what, self._done, self._total)


def _give_memory_back() -> None:
    """Returns freed memory to the system, for the next stage and for other processes."""
    # What an export leaves behind refers to itself in circles.
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    # glibc keeps the weights of a graph that is gone: 1.2 of 1.2 GB were seen. Others have no such
    # function.
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)


def _graph_runner(engine: Engine, stage: str, folder: Path) -> StageRunner:
    names = [tensor.name for tensor in STAGES[stage].inputs]

    def run(*inputs: NDArray[np.generic]) -> NDArray[np.generic]:
        try:
            return engine.run(folder / engine.file_name, dict(zip(names, inputs, strict=True)))[0]
        except (OSError, ValueError):
            raise
        except Exception as error:
            raise BuildError(
                f"stage {stage}: its graph does not run: {type(error).__name__}: {error}"
            ) from error

    return run
