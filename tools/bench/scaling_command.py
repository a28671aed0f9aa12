"""Measure one service over several GPUs: docs/results/scaling_<gpu>.json."""

from __future__ import annotations

import shlex
from pathlib import Path

from reelserve.client.cli import FAILURE, OK, USAGE, error_console
from reelserve.kernels.benchmarks.timing import results_file
from reelserve.server.launch.command import gpu_names
from reelserve.tools.bench.gpu.bench_results import newest_origin
from reelserve.tools.bench.gpu.cases import CASES, DRY_CASES, chosen
from reelserve.tools.bench.gpu.gpu_monitor import gpu_numbers, gpu_query
from reelserve.tools.bench.gpu.phases import Options, Runner
from reelserve.tools.bench.gpu.scaling import PHASES, Scaling, collect_scaling, missing_phases
from reelserve.tools.bench.gpu.settings import (
    ENGINE,
    INCOMPLETE,
    NO_GPU,
    new_parser,
    options_of,
    state_of,
)
from reelserve.tools.bench.gpu.state import Budget, OutOfBudgetError
from reelserve.tools.results_file import write_json


def run(argv: list[str]) -> int:
    """Runs `reelserve bench-scaling` and returns its exit status."""
    parser = new_parser("bench-scaling", __doc__, PHASES)
    parser.add_argument(
        "--gpus", type=gpu_names, default=(), metavar="N,N", help="one Triton on each of these"
    )
    parser.add_argument(
        "--export-only", action="store_true", help="make the model repositories, and no more"
    )
    arguments = parser.parse_args(argv)
    console = error_console()
    gpus = arguments.gpus or gpu_numbers()
    if not gpus:
        console.print("reelserve bench-scaling: there is no GPU here; --dry-run needs --gpus 0,1")
        return USAGE
    table = DRY_CASES if arguments.dry_run else CASES
    options = options_of(arguments)
    try:
        cases = chosen(arguments.only, table)
        state = state_of(arguments, options, cases)
    except ValueError as error:
        parser.error(str(error))
    measured_on = gpu_query("name") or newest_origin(table, state).get("gpu", NO_GPU)
    output = arguments.output or _output(options, measured_on)
    how = {
        "engine": options.engine,
        "precision": options.precision,
        "command": shlex.join(["reelserve", "bench-scaling", *argv]),
    }

    def write() -> None:
        write_json(output, collect_scaling(table, state, len(gpus), how))

    budget = Budget(arguments.budget_seconds)
    runner = Runner(options, table, state, budget, console.print, lambda: None)
    try:
        scaling = Scaling(runner, options, gpus, state, budget, console.print, write)
        failed = scaling.run(cases, export_only=arguments.export_only)
    except OutOfBudgetError as error:
        console.print(f"reelserve bench-scaling: {error}")
        for case in cases:
            for name in missing_phases(case, state, len(gpus)):
                console.print(f"not measured yet: {case.name}, {name}")
        return INCOMPLETE
    if not arguments.export_only:
        write()
    for message in failed:
        console.print(f"reelserve bench-scaling: {message}")
    if not arguments.export_only:
        console.print(f"{output}")
    return FAILURE if failed else OK


def _output(options: Options, gpu: str) -> Path:
    """Results of one engine: figures of another one must not take their place."""
    if options.tiny:
        return Path("build/scaling_dry.json")
    engine = "" if options.engine == ENGINE else f"_{options.engine.replace('-', '_')}"
    return results_file(f"scaling{engine}", gpu).with_suffix(".json")
