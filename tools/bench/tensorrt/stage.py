"""Builds one stage for one engine, compares it with torch and times it.

`python -m reelserve.tools.bench.tensorrt.stage JOB RESULT`, both JSON files, in a process of its
own, so that its memory is free afterwards and a library that crashes takes nothing with it.
"""

from __future__ import annotations

import contextlib
import json
import statistics
import sys
import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from reelserve.export.engines import Engine, get_engine
from reelserve.export.engines.onnx.engine import OnnxRuntimeEngine
from reelserve.export.engines.tensorrt.engine import MAX_BATCH, TensorRTEngine
from reelserve.export.parity import StageRun, compare_stage, torch_runner
from reelserve.export.stages import ExportStage, Precision, Target
from reelserve.pipeline.contract import TensorSpec
from reelserve.pipeline.provenance import commit
from reelserve.runtimes.aoti_package import Package
from reelserve.runtimes.onnx_graph import CUDA_PROVIDER, open_graph
from reelserve.runtimes.tensorrt_plan import TensorRTPlan, find_library
from reelserve.tools.bench.gpu.checkpoints import free_gpu_memory
from reelserve.tools.bench.gpu.state import Result
from reelserve.tools.bench.tensorrt.models import MODELS, Model, load_stage
from reelserve.tools.results_file import write_json

ArraysByName = dict[str, NDArray[np.generic]]
Call = Callable[[], object]
BUILD_FILE = "build.json"
DIGITS = 4
WARM_UPS = 3
REPEATS = (10, 200)
"""Least and most runs that are timed."""
SECONDS = 1.5
"""What the timed runs take together, unless that is too few or too many."""
TIMESTEP = 500.0


@dataclass(frozen=True)
class StageJob:
    """What to measure.

    Args:
        model: Its name in `MODELS`.
        stage: Its name.
        engine: Name of the engine.
        precision: Precision of weights and products.
        work: Folder for checkpoints and graphs.
        build_only: Whether to build and measure nothing.
    """

    model: str
    stage: str
    engine: str
    precision: Precision
    work: str
    build_only: bool = False


def measure_stage(job: StageJob) -> Result:
    """Figures of one stage on one engine; what was built before is measured as it is.

    The inputs are the same for every engine, and so is what is compared with: torch in fp32.

    Raises:
        EngineError: If the engine cannot be used here, or not build this.
    """
    engine, model = get_engine(job.engine), next(m for m in MODELS if m.name == job.model)
    engine.check(job.precision)
    work = Path(job.work)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    path, built = build_stage(engine, model, job, work)
    if job.build_only:
        return built
    free_gpu_memory()
    reference = load_stage(model, job.stage, Target("fp32", device), work)
    names = [spec.name for spec in reference.contract.inputs]
    run = reference_run(reference)
    del reference
    free_gpu_memory()

    def graph(*values: NDArray[np.generic]) -> NDArray[np.generic]:
        return engine.run(path, dict(zip(names, values, strict=True)))[0]

    parity = compare_stage(run, graph, f"torch fp32 on {device}", engine.checked_file())
    engine.release()
    arrays = dict(zip(names, run.inputs, strict=True))
    times = TIMERS[job.engine](engine, path, arrays)
    return {
        **times,
        "checked": parity.checked,
        "max_error": significant(parity.max_abs_error),
        "max_value": significant(parity.max_abs_value),
        "relative_error": significant(parity.relative_error),
        **built,
        "shapes": {name: list(array.shape) for name, array in arrays.items()},
    }


def build_stage(engine: Engine, model: Model, job: StageJob, work: Path) -> tuple[Path, Result]:
    """The file of a stage and what is known of its build, which an earlier run may have made.

    One of another commit is built anew.
    """
    folder = work / "built" / f"{job.engine}_{job.precision}" / f"{job.model}_{job.stage}"
    folder.mkdir(parents=True, exist_ok=True)
    path, record, own = folder / engine.file_name, folder / BUILD_FILE, commit()
    with contextlib.suppress(FileNotFoundError):
        known = json.loads(record.read_text())
        if known.pop("commit") == own and path.is_file():
            return path, known
    stage = load_stage(model, job.stage, engine.target(job.precision), work)
    started = time.perf_counter()
    engine.build(stage, path)
    built = {
        # Weights beyond what a graph may hold lie beside it.
        "plan_bytes": sum(file.stat().st_size for file in folder.glob(f"{path.name}*")),
        "build_s": round(time.perf_counter() - started, 1),
        "parameters": stage.num_parameters,
    }
    write_json(record, {**built, "commit": own})
    return path, built


def reference_run(stage: ExportStage) -> StageRun:
    """Inputs of a stage and what torch makes of them, in fp32 as it is."""
    # On by default for convolutions; it would round what everything is compared with.
    torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = False
    arrays = tuple(inputs_of(stage).values())
    output = torch_runner(stage)(*arrays)
    return StageRun(arrays, output, output)


def inputs_of(stage: ExportStage) -> ArraysByName:
    """Inputs of the usual shapes, the same in every process: noise, and frames that move."""
    examples = stage.inputs_at(MAX_BATCH.get(stage.name, 1))
    generator = np.random.default_rng(0)
    return {
        spec.name: _values(spec, example, generator)
        for spec, example in zip(stage.contract.inputs, examples, strict=True)
    }


def _values(
    spec: TensorSpec, example: Tensor, generator: np.random.Generator
) -> NDArray[np.generic]:
    shape = tuple(example.shape)
    if spec.name == "TIMESTEP":
        return np.full(shape, TIMESTEP, np.float32)
    if spec.dtype == "FP32":
        return generator.standard_normal(shape, np.float32)
    if spec.dtype == "UINT8":
        return moving_frames(shape)
    return example.cpu().numpy()


def moving_frames(shape: Sequence[int]) -> NDArray[np.uint8]:
    """A pattern that drifts: `[B, F, H, W, 3]`, smooth as the frames of a film are."""
    _, frames, height, width, channels = shape
    time_, row, column, colour = np.ogrid[:frames, :height, :width, :channels]
    waves = np.sin(row / 7 + time_ / 5) + np.cos(column / 9 - time_ / 4 + colour)
    levels = (127.5 + 60 * waves).astype(np.uint8)
    return np.broadcast_to(levels, shape).copy()


def time_tensorrt(engine: Engine, path: Path, arrays: ArraysByName) -> Result:
    """Runs of a plan, one by one and as a CUDA graph with the copies into and out of it.

    None of them where the plan cannot run here, and the graph that it was built from was compared.
    """
    assert isinstance(engine, TensorRTEngine)
    if not engine.runs_here():
        return {"ms": None, "graph_ms": None}
    device = torch.device("cuda", torch.cuda.current_device())
    tensors = on_device(arrays, device)
    found: Result = {}
    for name, recorded in (("ms", False), ("graph_ms", True)):
        plan = TensorRTPlan(find_library(), path, device, cuda_graph=recorded)
        found[name] = call_ms(lambda plan=plan: plan.run(tensors))  # type: ignore[misc]
        if recorded and not plan.recorded:
            found[name] = None
    return found


def time_package(engine: Engine, path: Path, arrays: ArraysByName) -> Result:
    """Runs of a package, row by row as it takes them, and all of them as a CUDA graph."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    package, tensors = Package(path, device), on_device(arrays, device)
    count = len(next(iter(arrays.values())))
    rows = [
        [tensors[spec.name][row : row + 1].contiguous() for spec in package.spec.inputs]
        for row in range(count)
    ]

    def run() -> None:
        for row in rows:
            package.run(row)

    with torch.no_grad():
        return {"ms": call_ms(run), "graph_ms": graph_ms(run) if device.type == "cuda" else None}


def time_onnx(engine: Engine, path: Path, arrays: ArraysByName) -> Result:
    """Runs of an ONNX graph; with the CUDA provider inputs and outputs stay on the GPU."""
    assert isinstance(engine, OnnxRuntimeEngine)
    session = open_graph(path, engine.provider)
    if engine.provider != CUDA_PROVIDER:
        return {"ms": call_ms(lambda: session.run(None, arrays)), "graph_ms": None}
    tensors = on_device(arrays, torch.device("cuda", 0))
    binding = session.io_binding()
    for name, tensor in tensors.items():
        dtype, shape = arrays[name].dtype.type, tuple(tensor.shape)
        binding.bind_input(name, "cuda", 0, dtype, shape, tensor.data_ptr())
    for output in session.get_outputs():
        binding.bind_output(output.name, "cuda", 0)
    return {"ms": call_ms(lambda: session.run_with_iobinding(binding)), "graph_ms": None}


TIMERS: dict[str, Callable[[Engine, Path, ArraysByName], Result]] = {
    "tensorrt": time_tensorrt,
    "pytorch": time_package,
    "onnxruntime": time_onnx,
    "onnxruntime-gpu": time_onnx,
}
"""How the graphs of an engine are run where they are timed."""


def on_device(arrays: ArraysByName, device: torch.device) -> dict[str, Tensor]:
    """Tensors of the arrays on a device."""
    return {name: torch.from_numpy(array).to(device) for name, array in arrays.items()}


def graph_ms(call: Call) -> float | None:
    """Milliseconds of a replay of what a call launches; None where it cannot be recorded."""
    try:
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            call()
    except RuntimeError:
        return None
    return call_ms(graph.replay)


def call_ms(call: Call) -> float:
    """Median milliseconds of single calls, each until the GPU has ended.

    Args:
        call: Runs once.
    """
    for _ in range(WARM_UPS):
        _once_ms(call)
    repeats = SECONDS * 1e3 / max(_once_ms(call), 1e-3)
    least, most = REPEATS
    times = [_once_ms(call) for _ in range(int(min(max(repeats, least), most)))]
    return significant(statistics.median(times))


def _once_ms(call: Call) -> float:
    started = time.perf_counter()
    call()
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return 1e3 * (time.perf_counter() - started)


def significant(value: float) -> float:
    """A figure with as many digits as it deserves."""
    return float(f"{value:.{DIGITS}g}")


def main() -> None:
    """Measures what the first file says, and writes it, or the error, to the second."""
    job_file, result_file = map(Path, sys.argv[1:])
    try:
        result = measure_stage(StageJob(**json.loads(job_file.read_text())))
    # Whatever a library raises is a result: the stage is one that this engine does not do here.
    except Exception as error:
        traceback.print_exc()
        result = {"error": f"{type(error).__name__}: {error}"}
    write_json(result_file, result)


if __name__ == "__main__":
    main()
