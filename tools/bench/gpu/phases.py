"""Leads the benchmark from phase to phase; each is kept on disk and not run again."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from pathlib import Path

from reelserve.client import ReelserveError
from reelserve.export.parity import ENGINE_STAGES
from reelserve.loadtest.command import LoadError
from reelserve.server.launch.installation import InstallationError
from reelserve.server.launch.triton_process import ServerError
from reelserve.tools.bench.gpu.cases import Case
from reelserve.tools.bench.gpu.children import ChildError, run_child, run_module
from reelserve.tools.bench.gpu.exporting import (
    export_command,
    exported_stages,
    is_exported,
    prepare_repository,
    release_denoiser_weights,
    release_stages,
    repository_of,
)
from reelserve.tools.bench.gpu.gpu_monitor import GpuMonitor
from reelserve.tools.bench.gpu.in_process import Job
from reelserve.tools.bench.gpu.served_clips import (
    LEVEL_CLIPS,
    PROMPT,
    level_clips,
    served_case,
)
from reelserve.tools.bench.gpu.state import Budget, Result, State

EXPORT, IN_PROCESS, SERVE, CURVES = "export", "in_process", "serve", "curves"
PHASES = (EXPORT, IN_PROCESS, SERVE, CURVES)
ESTIMATES_S = {"checkpoint": 60.0, EXPORT: 60.0, IN_PROCESS: 60.0, SERVE: 90.0, CURVES: 60.0}
"""Seconds that must be left for a phase to begin. An export goes on where it was interrupted, so it
begins with less than it takes."""
IN_PROCESS_CLIPS = 3
LEVEL_OVERHEAD_S = 15.0
"""Seconds of the load generator's start, and of its waits between two levels."""
SERVED_FACTOR = 2.0
"""How much longer a clip may take in the server than in one process, for the estimate."""
FAILURES = (ChildError, LoadError, ReelserveError, InstallationError, ServerError, ValueError)


@dataclass(frozen=True)
class Options:
    """How to run.

    Args:
        work: Folder for repositories, logs and results of phases.
        checkpoints: Folder for checkpoints.
        engine: Engine that is exported for.
        precision: Precision of the stages.
        jobs: Stages that are built at once.
        tiny: Whether models are tiny, and levels as short as they may be.
        ready_timeout_s: Bound on the server's start.
        keep: Whether graphs stay after they were measured.
    """

    work: Path
    checkpoints: Path
    engine: str
    precision: str
    jobs: int
    tiny: bool
    ready_timeout_s: float
    keep: bool


def run_cases(
    chosen: Iterable[Case], run: Callable[[Case], None], tell: Callable[[str], object]
) -> list[str]:
    """Runs each case; one that fails is left, and the next one is begun.

    Args:
        chosen: Cases.
        run: Runs one.
        tell: Takes a line of each that fails.

    Returns:
        What failed.
    """
    failed = []
    for case in chosen:
        try:
            run(case)
        except FAILURES as error:
            failed.append(f"{case.name}: {error}")
            tell(f"FAILED {failed[-1]}")
    return failed


class Runner:
    """Runs the phases that are missing.

    Args:
        options: How.
        cases: All that there are; those that are not chosen may lend their stages.
        state: What has been measured.
        budget: How long this may take.
        tell: Takes lines about how far it is.
        changed: Called after every phase.
    """

    def __init__(
        self,
        options: Options,
        cases: tuple[Case, ...],
        state: State,
        budget: Budget,
        tell: Callable[[str], object],
        changed: Callable[[], object],
    ) -> None:
        self._options, self._cases, self._state = options, cases, state
        self._budget, self._tell, self._changed = budget, tell, changed

    def run(self, chosen: tuple[Case, ...], *, curves: bool) -> list[str]:
        """Runs what is missing of some cases, and the curves.

        Returns:
            What failed: a case whose phase fails is left, and the next one is begun.

        Raises:
            OutOfBudgetError: If a phase does not fit into the time that is left.
        """
        failed = run_cases(chosen, self._case, self._tell)
        if curves:
            try:
                self._curves(chosen)
            except FAILURES as error:
                failed.append(f"curves: {error}")
        return failed

    def _case(self, case: Case) -> None:
        levels = [level for level in LEVEL_CLIPS if not self._find(case, f"{SERVE} {level}")]
        if self._find(case, IN_PROCESS) and not levels:
            return
        self.export(case)
        if not self._find(case, IN_PROCESS):
            self._in_process(case)
        if levels:
            self._serve(case, levels)
        if not self._options.keep:
            self.release(case)

    def export(self, case: Case) -> None:
        """Makes a case's checkpoint and its model repository, where they are not there.

        Raises:
            ChildError: If a part fails.
            OutOfBudgetError: If it does not fit into the time that is left.
        """
        options, repository = self._options, repository_of(case, self._options.work)
        siblings = [other for other in self._cases if other is not case]
        # Of a repository that is exported too: its configs may have been changed since.
        prepare_repository(case, siblings, options.work)
        if self._find(case, EXPORT) and is_exported(repository):
            return
        self._begin(case, "checkpoint")
        written = run_module(
            "reelserve.tools.bench.gpu.checkpoints",
            {"case": asdict(case), "folder": str(options.checkpoints), "tiny": options.tiny},
            options.work / case.name,
            self._budget,
        )
        checkpoint = Path(written["checkpoint"])
        self._begin(case, EXPORT)
        command = export_command(
            case, checkpoint, repository, options.engine, options.precision, options.jobs
        )
        binary = Path(sys.executable).with_name(command[0])
        log = options.work / case.name / "export.log"
        seconds = run_child([str(binary), *command[1:]], log, self._budget)
        self._save(
            case,
            EXPORT,
            {
                "command": " ".join(Path(part).name if "/" in part else part for part in command),
                "checkpoint_s": written["seconds"],
                "seconds": round(seconds, 1),
                "stages": exported_stages(repository),
            },
        )
        if not options.keep and checkpoint.is_relative_to(options.checkpoints):
            release_denoiser_weights(checkpoint)

    def _in_process(self, case: Case) -> None:
        self._begin(case, IN_PROCESS)
        folder = self._options.work / case.name
        job = Job(
            repository=str(repository_of(case, self._options.work)),
            engine=self._options.engine,
            prompt=PROMPT,
            settings={
                "seed": 0,
                "num_inference_steps": case.steps,
                "guidance_scale": case.guidance,
                "num_frames": case.num_frames,
                "height": case.height,
                "width": case.width,
            },
            fps=case.fps,
            clips=IN_PROCESS_CLIPS,
            mp4=str(folder / "in_process.mp4"),
        )
        folder.mkdir(parents=True, exist_ok=True)
        with GpuMonitor() as gpu:
            result = run_module(
                "reelserve.tools.bench.gpu.in_process", asdict(job), folder, self._budget
            )
        measured = {"peak_memory_bytes": gpu.peak_memory_bytes(), **gpu.speed()}
        self._save(case, IN_PROCESS, {**result, **measured})

    def _serve(self, case: Case, levels: list[int]) -> None:
        self._begin(case, SERVE)
        options, folder = self._options, self._options.work / case.name
        left_s = self._budget.left_s
        timeout_s = min(options.ready_timeout_s, left_s or options.ready_timeout_s)
        repository = repository_of(case, options.work)
        with served_case(case, repository, folder / "triton.log", timeout_s) as served:
            video, first_s = served.first_clip()
            video.save(folder / "served.mp4")
            self._save(
                case,
                f"{SERVE} first",
                {
                    "ready_s": round(served.server.ready_s, 2),
                    "first_clip_s": round(first_s, 3),
                    "mp4_bytes": len(video.mp4),
                    "versions": video.info.versions,
                },
            )
            alone = self._find(case, IN_PROCESS)
            assert alone is not None, "measured before"
            for level in levels:
                # One for each caller shows that it runs.
                clips = level if options.tiny else level_clips(level, alone["seconds"])
                # A round of the callers warms the level up.
                most_s = LEVEL_OVERHEAD_S + SERVED_FACTOR * alone["seconds"] * (level + clips)
                self._budget.require(f"{case.name}, {level} at once", most_s)
                self._tell(f"{case.name}: {level} at once")
                result = served.level(level, clips, video, self._budget.left_s or 600.0)
                self._save(case, f"{SERVE} {level}", result)

    def release(self, case: Case) -> None:
        """Deletes the case's graphs but for those that another case may still take over."""
        waiting = [other for other in self._cases if not self._find(other, EXPORT)]
        wanted = {other.stage_key(stage) for other in waiting for stage in ENGINE_STAGES} - {None}
        gone = [stage for stage in ENGINE_STAGES if case.stage_key(stage) not in wanted]
        release_stages(repository_of(case, self._options.work), gone)

    def _curves(self, chosen: tuple[Case, ...]) -> None:
        sized = [case for case in chosen if case.weights == "random"]
        missing = [case for case in sized if not self._find(case, CURVES)]
        for case in missing:
            self._begin(case, CURVES)
            result = run_module(
                "reelserve.tools.bench.gpu.curves",
                {"case": asdict(case), "tiny": self._options.tiny},
                self._options.work / case.name,
                self._budget,
            )
            self._save(case, CURVES, result)

    def _begin(self, case: Case, phase: str) -> None:
        self._budget.require(f"{case.name}: {phase}", ESTIMATES_S[phase])
        left_s = self._budget.left_s
        left = "" if left_s is None else f", {left_s:.0f} s left"
        self._tell(f"{case.name}: {phase}{left} ({time.strftime('%H:%M:%S')})")

    def _find(self, case: Case, phase: str) -> Result | None:
        return self._state.find(case, phase)

    def _save(self, case: Case, phase: str, result: Result) -> None:
        self._state.save(case, phase, result)
        self._changed()
