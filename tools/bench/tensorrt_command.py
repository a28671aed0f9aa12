"""Measure TensorRT plans on one NVIDIA GPU: docs/results/bench_tensorrt_<gpu>.json."""

from __future__ import annotations

import argparse
import importlib.metadata
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from reelserve.client.argument_types import real_number, whole_number
from reelserve.client.cli import FAILURE, OK, USAGE, error_console
from reelserve.export.command import add_fp32_stages
from reelserve.kernels.benchmarks.timing import results_file
from reelserve.pipeline.output_place import output_file
from reelserve.runtimes.tensorrt_plan import TensorRTError, find_library
from reelserve.tools.bench.gpu.cases import chosen
from reelserve.tools.bench.gpu.gpu_monitor import gpu_query
from reelserve.tools.bench.gpu.state import Budget, OutOfBudgetError, State
from reelserve.tools.bench.tensorrt.models import MODELS
from reelserve.tools.bench.tensorrt.parsing import parse_all
from reelserve.tools.bench.tensorrt.parts import (
    CLIPS,
    SERVE,
    STAGES,
    TENSORRT,
    Part,
    PartRunner,
    all_parts,
)
from reelserve.tools.bench.tensorrt.results import (
    NO_VERSION,
    collect_parts,
    missing_parts,
    part_faults,
)
from reelserve.tools.results_file import write_json

INCOMPLETE = 3
"""Exit status: what was measured is kept, and the same command goes on."""
DRY = "cpu"
PARSE = "parse"
STATE_FILE = "state.json"
OTHERS = {False: ("onnxruntime-gpu", "pytorch"), True: ("onnxruntime", "pytorch")}
"""Engines that TensorRT is measured beside, by whether there is no GPU."""
PACKAGES = ("torch", "onnx", "onnxscript", "onnxruntime", "onnxruntime-gpu", "nvidia-pytriton")
EPILOG = """\
Every part is kept on disk as soon as it ends; the same command goes on with the next one. A part
that fails is kept with its error. Exit status: 0 if all is measured and good, 1 if a part failed or
served clips are too far from those of the ONNX graphs, 2 if the command is wrong, 3 if the budget
ended before the last part.
"""


def run(argv: list[str]) -> int:
    """Runs `reelserve bench-tensorrt` and returns its exit status."""
    parser = _parser()
    arguments = parser.parse_args(argv)
    console = error_console()

    def tell(line: str) -> None:
        console.print(line, markup=False, soft_wrap=True)

    try:
        names = [model.name for model in chosen(arguments.models, MODELS, "--models")]
    except ValueError as error:
        parser.error(str(error))
    if arguments.only == PARSE:
        return _parse(names, arguments.work_dir.resolve(), tell)
    if not (arguments.dry_run or gpu_query("name")):
        tell("reelserve bench-tensorrt: there is no GPU here; --dry-run needs none")
        return USAGE
    others = OTHERS[arguments.dry_run]
    engines = tuple(arguments.engines or (TENSORRT, *others))
    parts = [
        part
        for part in all_parts((TENSORRT, *others), others[0])
        if part.model.name in names
        and part.engine in engines
        and arguments.only in (None, part.kind)
    ]
    return _measure(arguments, parts, shlex.join(["reelserve", "bench-tensorrt", *argv]), tell)


def _measure(arguments: argparse.Namespace, parts: Sequence[Part], command: str, tell: Any) -> int:
    work: Path = arguments.work_dir.resolve()
    others = OTHERS[arguments.dry_run]
    state = State(work / STATE_FILE, {"dry": arguments.dry_run}, _machine())
    every = list(all_parts((TENSORRT, *others), others[0]))
    output = arguments.output or _output(dry=arguments.dry_run)
    if arguments.redo_failed:
        for part in parts:
            if "error" in (state.find(part.model, part.phase) or {}):
                state.forget(part.model, part.phase)

    def write() -> None:
        write_json(output, collect_parts(every, state, {"command": command}))

    budget = Budget(arguments.budget_seconds)
    runner = PartRunner(
        work,
        others[0],
        state,
        budget,
        tell,
        write,
        tiny=arguments.dry_run,
        fp32_stages=tuple(arguments.fp32_stages),
    )
    try:
        if arguments.build_only:
            return FAILURE if runner.build_ahead(parts, arguments.jobs) else OK
        if arguments.jobs > 1:
            runner.build_ahead(parts, arguments.jobs)
        runner.run(parts)
    except OutOfBudgetError as error:
        tell(f"reelserve bench-tensorrt: {error}")
        for title in missing_parts(parts, state):
            tell(f"not measured yet: {title}")
        return INCOMPLETE
    write()
    found = part_faults(parts, state)
    for fault in found:
        tell(f"reelserve bench-tensorrt: {fault}")
    tell(str(output))
    return FAILURE if found else OK


def _parse(names: Sequence[str], work: Path, tell: Any) -> int:
    try:
        results = parse_all([model for model in MODELS if model.name in names], work, tell)
    except TensorRTError as error:
        tell(f"reelserve bench-tensorrt: {error}")
        return FAILURE
    write_json(work / f"{PARSE}.json", results)
    return FAILURE if any(found["error"] for found in results) else OK


def _machine() -> dict[str, Any]:
    versions = {"cuda": torch.version.cuda or NO_VERSION}
    for name in PACKAGES:
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    try:
        library = find_library()
        versions[library.name] = library.version
    except TensorRTError:
        versions[TENSORRT] = NO_VERSION
    return {
        "gpu": gpu_query("name") or DRY,
        "driver": gpu_query("driver_version"),
        "versions": versions,
    }


def _output(*, dry: bool) -> Path:
    if dry:
        return Path("build/bench_tensorrt_dry.json")
    return results_file("bench_tensorrt", gpu_query("name") or DRY).with_suffix(".json")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="reelserve bench-tensorrt",
        description=__doc__,
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    names = ", ".join(model.name for model in MODELS)
    parser.add_argument(
        "--only",
        choices=(PARSE, STAGES, CLIPS, SERVE),
        help="one kind of part; parse only reads every graph with TensorRT's parser",
    )
    parser.add_argument("--models", metavar="MODEL[,MODEL]", help=f"some of {names}")
    parser.add_argument(
        "--engines", nargs="+", choices=sorted({TENSORRT, *OTHERS[False], *OTHERS[True]})
    )
    add_fp32_stages(parser, "stages that the served fp16 plans keep in fp32")
    parser.add_argument(
        "--budget-seconds",
        type=real_number(0, above=True),
        metavar="N",
        help="end before a part that would not fit; status 3",
    )
    parser.add_argument(
        "--work-dir", type=Path, default=Path("build/bench_tensorrt"), metavar="FOLDER"
    )
    parser.add_argument("--output", type=output_file, metavar="FILE", help="named after the GPU")
    parser.add_argument(
        "--jobs",
        type=whole_number(1),
        default=1,
        metavar="N",
        help="build so many at once before anything is measured; TensorRT then chooses its kernels "
        "while others run",
    )
    parser.add_argument(
        "--build-only", action="store_true", help="build for a later run, and measure nothing"
    )
    parser.add_argument("--redo-failed", action="store_true", help="measure again what failed")
    parser.add_argument(
        "--dry-run", action="store_true", help="without a GPU, to show that it runs"
    )
    return parser
