"""Measure sized models on one NVIDIA GPU through the server: docs/results/bench_gpu_<gpu>.json."""

from __future__ import annotations

import argparse
import shlex
from pathlib import Path
from typing import Any

from reelserve.client.cli import FAILURE, OK, USAGE, error_console
from reelserve.kernels.benchmarks.timing import results_file
from reelserve.pipeline.output_place import output_file
from reelserve.tools.bench.gpu.bench_results import collect, missing, newest_origin
from reelserve.tools.bench.gpu.cases import CASES, DRY_CASES, chosen
from reelserve.tools.bench.gpu.gpu_monitor import gpu_query
from reelserve.tools.bench.gpu.phases import PHASES, Options, Runner
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

PLOTS = Path("docs/images")


def run(argv: list[str]) -> int:
    """Runs `reelserve bench-gpu` and returns its exit status."""
    parser = _parser()
    arguments = parser.parse_args(argv)
    console = error_console()
    table = DRY_CASES if arguments.dry_run else CASES
    options, curves = options_of(arguments), not arguments.no_curves
    try:
        cases = chosen(arguments.only, table)
        state = state_of(arguments, options, cases)
        gpu = gpu_query("name") or newest_origin(table, state).get("gpu", NO_GPU)
    except ValueError as error:
        parser.error(str(error))
    # What was measured elsewhere can be put together anywhere.
    if missing(cases, state, curves=curves) and not (options.tiny or gpu_query("name")):
        console.print("reelserve bench-gpu: there is no GPU here; --dry-run needs none")
        return USAGE
    output = arguments.output or _output(options, gpu)
    plot = arguments.plot or (None if options.tiny else PLOTS / f"{output.stem}.png")
    how = {
        "engine": options.engine,
        "precision": options.precision,
        "command": shlex.join(["reelserve", "bench-gpu", *argv]),
        "plot": plot.name if plot else None,
    }
    runner = Runner(
        options,
        table,
        state,
        Budget(arguments.budget_seconds),
        console.print,
        lambda: write_json(output, collect(table, state, how)),
    )
    try:
        failed = runner.run(cases, curves=curves)
    except OutOfBudgetError as error:
        if (results := collect(table, state, how))["models"]:
            _write(results, output, plot)
        console.print(f"reelserve bench-gpu: {error}")
        for phase in missing(cases, state, curves=curves):
            console.print(f"not measured yet: {phase}")
        return INCOMPLETE
    _write(collect(table, state, how), output, plot)
    for message in failed:
        console.print(f"reelserve bench-gpu: {message}")
    console.print(f"{output}")
    return FAILURE if failed else OK


def _write(results: dict[str, Any], output: Path, plot: Path | None) -> None:
    write_json(output, results)
    if plot is not None:
        # Here, because matplotlib takes a second to import, which `--help` need not wait for.
        from reelserve.loadtest.plots import save_png
        from reelserve.tools.bench.gpu.bench_plot import draw_bench

        save_png(draw_bench(results), plot)


def _output(options: Options, gpu: str) -> Path:
    """Results of one engine: figures of another one must not take their place."""
    if options.tiny:
        return Path("build/bench_gpu_dry.json")
    engine = "" if options.engine == ENGINE else f"_{options.engine.replace('-', '_')}"
    return results_file(f"bench_gpu{engine}", gpu).with_suffix(".json")


def _parser() -> argparse.ArgumentParser:
    parser = new_parser("bench-gpu", __doc__, PHASES)
    parser.add_argument("--plot", type=output_file, metavar="FILE", help="PNG, named after output")
    parser.add_argument("--no-curves", action="store_true")
    return parser
