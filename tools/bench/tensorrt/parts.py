"""Leads the benchmark from part to part; each is kept on disk and not run again."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path

from reelserve.client import ReelserveError
from reelserve.export.stages import Precision
from reelserve.server.launch.installation import InstallationError
from reelserve.server.launch.triton_process import ServerError
from reelserve.tools.bench.gpu.children import ChildError, run_module
from reelserve.tools.bench.gpu.state import Budget, OutOfBudgetError, Result, State
from reelserve.tools.bench.tensorrt import serving
from reelserve.tools.bench.tensorrt.models import BLOCK, BUNDLED, MODELS, Model
from reelserve.tools.bench.tensorrt.stage import StageJob

TENSORRT = "tensorrt"
PRECISIONS: tuple[Precision, ...] = ("fp32", "fp16")
STAGES, CLIPS, SERVE = "stages", "clips", "serve"
LEAST_S = {STAGES: 45.0, CLIPS: 120.0, SERVE: 150.0}
"""Seconds that must be left for a part to begin."""
MOST_S = 480.0
"""A part that had so long and has not ended counts as failed, or every run would begin it anew."""
FAILURES = (ReelserveError, InstallationError, ServerError, OSError, RuntimeError, ValueError)


@dataclass(frozen=True)
class Part:
    """One thing to measure.

    Args:
        kind: `stages`; `clips`, which are compared; or `serve`, how many a second there are.
        model: Its model.
        engine: Name of the engine.
        precision: Precision of weights and products.
        stage: Name of the stage; empty where a whole checkpoint is served.
    """

    kind: str
    model: Model
    engine: str
    precision: Precision
    stage: str = ""

    @property
    def phase(self) -> str:
        """Its name in the state."""
        return " ".join(filter(None, (self.kind, self.stage, self.engine, self.precision)))

    @property
    def built(self) -> tuple[str, ...]:
        """Names what has to be built for it."""
        return (self.model.name, self.stage, self.engine, self.precision)

    @property
    def title(self) -> str:
        """Its name for people."""
        return f"{self.model.name}: {self.phase}"


def all_parts(engines: Sequence[str], reference: str) -> Iterator[Part]:
    """Every part, in the order of their worth to a run that may be cut short.

    Args:
        engines: Engines whose stages are measured; TensorRT is among them.
        reference: Engine of the ONNX graphs that served clips are compared with.
    """
    checkpoints = [model for model in MODELS if model.name != BLOCK]
    block = [model for model in MODELS if model.name == BLOCK]
    others = [engine for engine in engines if engine != TENSORRT]
    bundled = next(model for model in MODELS if model.name == BUNDLED)
    yield from _stages(checkpoints, [TENSORRT])
    yield from _server_parts(bundled, reference, "fp32")
    for precision in PRECISIONS:
        yield from _server_parts(bundled, TENSORRT, precision)
    yield from _stages(checkpoints, others)
    yield from _stages(block, engines)


def _server_parts(model: Model, engine: str, precision: Precision) -> Iterator[Part]:
    return (Part(kind, model, engine, precision) for kind in (CLIPS, SERVE))


def _stages(models: Iterable[Model], engines: Sequence[str]) -> Iterator[Part]:
    return (
        Part(STAGES, model, engine, precision, stage)
        for model in models
        for engine in engines
        for precision in PRECISIONS
        for stage in model.stages
    )


class PartRunner:
    """Runs the parts that are missing.

    Args:
        work: Folder for checkpoints, graphs, logs and clips.
        reference: Engine of the ONNX graphs that served clips are compared with.
        state: What has been measured.
        budget: How long this may take.
        tell: Takes lines about how far it is.
        changed: Called after every part.
        tiny: Whether served clips are short.
        fp32_stages: Stages that the served plans of a lower precision keep in fp32.
    """

    def __init__(
        self,
        work: Path,
        reference: str,
        state: State,
        budget: Budget,
        tell: Callable[[str], object],
        changed: Callable[[], object],
        *,
        tiny: bool = False,
        fp32_stages: tuple[str, ...] = (),
    ) -> None:
        self._work, self._reference, self._tiny = work, reference, tiny
        self._fp32_stages = fp32_stages
        self._state, self._budget = state, budget
        self._tell, self._changed = tell, changed

    def run(self, parts: Iterable[Part]) -> None:
        """Runs what is missing; a part that fails is kept with its error, and the next one begun.

        Raises:
            OutOfBudgetError: If a part does not fit into the time that is left.
        """
        for part in parts:
            if not self._done(part):
                self._budget.require(part.title, LEAST_S[part.kind])
                self._tell(f"{part.title} ({time.strftime('%H:%M:%S')})")
                result = self._result(part)
                if "error" in result:
                    self._tell(f"FAILED {part.title}: {result['error']}")
                self._state.save(part.model, part.phase, result)
                self._changed()

    def _done(self, part: Part) -> bool:
        """Whether a part is measured, and what others are compared with is still there."""
        result = self._state.find(part.model, part.phase)
        if result is None or "error" in result or part.kind != CLIPS or part.engine == TENSORRT:
            return result is not None
        return self._clips(part.engine, part.precision).is_dir()

    def _clips(self, engine: str, precision: str) -> Path:
        return self._work / "clips" / f"{engine}_{precision}"

    def build_ahead(self, parts: Iterable[Part], jobs: int) -> int:
        """Builds what is missing, several at once; what fails is begun again where it is measured.

        Args:
            parts: Those whose builds are wanted.
            jobs: Builds at once.

        Returns:
            Builds that failed.
        """
        wanted = [part for part in parts if self._state.find(part.model, part.phase) is None]
        # Clips that are compared and those that are counted are drawn by the same export.
        missing = list({part.built: part for part in wanted}.values())
        self._tell(f"{len(missing)} builds, {jobs} at once ({time.strftime('%H:%M:%S')})")
        with ThreadPoolExecutor(jobs) as pool:
            errors = list(pool.map(self._build, missing))
        for part, error in zip(missing, errors, strict=True):
            if error:
                self._tell(f"FAILED {part.title}, build: {error}")
        return sum(bool(error) for error in errors)

    def _build(self, part: Part) -> str:
        """Builds a part, and gives the error."""
        try:
            if part.kind != STAGES:
                self._export(part)
                return ""
            return str(self._child(part, build_only=True).get("error", ""))
        except ChildError as error:
            return _end_of(error)
        except (*FAILURES, OutOfBudgetError) as error:
            return str(error)

    def _result(self, part: Part) -> Result:
        left_s = self._budget.left_s
        try:
            return self._stage(part) if part.kind == STAGES else self._served(part)
        except OutOfBudgetError as error:
            if left_s is None or left_s < MOST_S:
                raise
            return {"error": f"not done in {left_s:.0f} s: {error}"}
        except ChildError as error:
            return {"error": _end_of(error)}
        except FAILURES as error:
            return {"error": str(error)}

    def _stage(self, part: Part) -> Result:
        return self._child(part, build_only=False)

    def _child(self, part: Part, *, build_only: bool) -> Result:
        job = StageJob(
            *(part.model.name, part.stage, part.engine, part.precision, str(self._work)),
            build_only=build_only,
        )
        folder = self._work / "parts" / f"{part.model.name} {part.phase}".replace(" ", "_")
        return run_module("reelserve.tools.bench.tensorrt.stage", asdict(job), folder, self._budget)

    def _export(self, part: Part) -> Path:
        case = serving.served_case_of(tiny=self._tiny)
        kept = self._kept_in_fp32(part)
        return serving.export(case, part.engine, part.precision, kept, self._work, self._budget)

    def _kept_in_fp32(self, part: Part) -> tuple[str, ...]:
        return () if part.precision == "fp32" else self._fp32_stages

    def _served(self, part: Part) -> Result:
        repository = self._export(part)
        self._budget.require(part.title, LEAST_S[part.kind] / 2)
        case = serving.served_case_of(tiny=self._tiny)
        kept: Result = {"fp32_stages": list(self._kept_in_fp32(part))}
        if part.kind == SERVE:
            return {**serving.measure_load(case, repository, self._budget), **kept}
        own = self._clips(part.engine, part.precision)
        serving.draw_clips(case, repository, own)
        if part.engine == TENSORRT:
            kept["psnr_db"] = serving.least_psnr_db(own, self._clips(self._reference, "fp32"))
        return kept


def _end_of(error: ChildError) -> str:
    """How a process ended and its last words, without its command, which names folders."""
    status, _, words = str(error).partition(" ended with ")[2].partition(": ")
    return f"ended with {status}: {words.rpartition(' / ')[2]}"
