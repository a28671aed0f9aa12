"""Measure sized models on one NVIDIA GPU through the server: docs/results/bench_gpu_<gpu>.json."""

from __future__ import annotations

import argparse
import importlib.metadata
import shlex
from pathlib import Path
from typing import Any

from reelserve.client.argument_types import real_number, whole_number
from reelserve.client.cli import FAILURE, OK, USAGE, error_console
from reelserve.export.engines import ENGINES, get_engine
from reelserve.export.stages import DTYPES
from reelserve.kernels.benchmarks.timing import results_file
from reelserve.pipeline.output_place import output_file
from reelserve.server.launch.command import gpu_names
from reelserve.tools.bench.gpu.bench_results import collect, missing, newest_origin
from reelserve.tools.bench.gpu.cases import CASES, DRY_CASES, Case, chosen
from reelserve.tools.bench.gpu.gpu_monitor import gpu_query
from reelserve.tools.bench.gpu.phases import PHASES, Options, Runner
from reelserve.tools.bench.gpu.state import Budget, OutOfBudgetError, State
from reelserve.tools.results_file import write_json

INCOMPLETE = 3
"""Exit status: what was measured is kept, and the same command goes on."""
DRY = "cpu"
ENGINE = "pytorch"
"""What is measured unless told otherwise, and whose results file is named after the GPU alone."""
PLOTS = Path("docs/images")
STATE_FILE = "state.json"
EPILOG = """\
Every phase is kept on disk as soon as it ends; the same command goes on with the next one. Exit
status: 0 if all is measured, 1 if something failed, 2 if the command is wrong, 3 if the budget
ended before the last phase.
"""
PACKAGES = ("torch", "triton", "diffusers", "transformers", "nvidia-pytriton")


def run(argv: list[str]) -> int:
    """Runs `reelserve bench-gpu` and returns its exit status."""
    parser = _parser()
    arguments = parser.parse_args(argv)
    console = error_console()
    table = DRY_CASES if arguments.dry_run else CASES
    options, curves = _options(arguments), not arguments.no_curves
    try:
        cases = chosen(arguments.only, table)
        state = _state(arguments, options, cases)
        gpu = gpu_query("name") or newest_origin(table, state).get("gpu", DRY)
    except ValueError as error:
        parser.error(str(error))
    # What was measured elsewhere can be put together anywhere.
    if missing(cases, state, options.levels, curves=curves) and not (
        options.tiny or gpu_query("name")
    ):
        console.print("reelserve bench-gpu: there is no GPU here; --dry-run needs none")
        return USAGE
    output = arguments.output or _output(options, gpu)
    plot = arguments.plot or (None if options.tiny else PLOTS / f"{output.stem}.png")
    how = {
        "engine": options.engine,
        "precision": options.precision,
        "gpus": max(1, len(options.gpus)),
        "command": shlex.join(["reelserve", "bench-gpu", *argv]),
        "plot": plot.name if plot else None,
    }
    runner = Runner(
        options,
        table,
        state,
        Budget(arguments.budget_seconds),
        console.print,
        lambda: _write(collect(table, state, how), output, plot),
    )
    try:
        failed = runner.run(cases, curves=curves)
    except OutOfBudgetError as error:
        console.print(f"reelserve bench-gpu: {error}")
        for phase in missing(cases, state, options.levels, curves=curves):
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


def _options(arguments: argparse.Namespace) -> Options:
    work: Path = arguments.work_dir.resolve()
    return Options(
        work=work,
        checkpoints=(arguments.checkpoint_dir or work).resolve(),
        engine=arguments.engine,
        precision=arguments.precision or ("fp32" if arguments.dry_run else "bf16"),
        jobs=arguments.jobs,
        tiny=arguments.dry_run,
        ready_timeout_s=arguments.ready_timeout,
        keep=arguments.keep,
        gpus=arguments.gpus,
    )


def _state(arguments: argparse.Namespace, options: Options, cases: tuple[Case, ...]) -> State:
    """What was measured here and in the folders that are merged, less what is to be redone."""
    state = State(options.work / STATE_FILE, _settings(options), _machine(options))
    for folder in arguments.merge:
        state.take_over(folder / STATE_FILE)
    for phase in arguments.redo:
        for case in cases:
            state.forget(case, phase)
    return state


def _settings(options: Options) -> dict[str, Any]:
    names = ("engine", "precision", "tiny")
    several = {"gpus": list(options.gpus)} if options.gpus else {}
    return {**{name: getattr(options, name) for name in names}, **several}


def _machine(options: Options) -> dict[str, Any]:
    return {
        "gpu": gpu_query("name") or DRY,
        "driver": gpu_query("driver_version"),
        "compute_capability": gpu_query("compute_cap"),
        "versions": {**_versions(), **get_engine(options.engine).versions()},
    }


def _versions() -> dict[str, str]:
    found = {}
    for name in PACKAGES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def _output(options: Options, gpu: str) -> Path:
    """Results of one engine: figures of another one must not take their place."""
    if options.tiny:
        return Path("build/bench_gpu_dry.json")
    engine = "" if options.engine == ENGINE else f"_{options.engine.replace('-', '_')}"
    several = f"_{len(options.gpus)}_gpus" if options.gpus else ""
    return results_file(f"bench_gpu{several}{engine}", gpu).with_suffix(".json")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="reelserve bench-gpu",
        description=__doc__,
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    names = ", ".join(case.name for case in CASES)
    parser.add_argument("--only", metavar="CASE[,CASE]", help=f"some of {names}")
    parser.add_argument(
        "--budget-seconds",
        type=real_number(0, above=True),
        metavar="N",
        help="end before a phase that would not fit; status 3",
    )
    parser.add_argument("--work-dir", type=Path, default=Path("build/bench_gpu"), metavar="FOLDER")
    parser.add_argument(
        "--checkpoint-dir", type=Path, metavar="FOLDER", help="for checkpoints (the work folder)"
    )
    parser.add_argument("--output", type=output_file, metavar="FILE", help="named after the GPU")
    parser.add_argument("--plot", type=output_file, metavar="FILE", help="PNG, named after output")
    parser.add_argument("--engine", choices=sorted(ENGINES), default=ENGINE)
    parser.add_argument("--precision", choices=list(DTYPES), help="bf16; of a dry run fp32")
    parser.add_argument("--jobs", type=whole_number(1), default=1, help="stages built at once")
    parser.add_argument(
        "--ready-timeout", type=real_number(1), default=600.0, metavar="S", help="of the server"
    )
    parser.add_argument(
        "--gpus", type=gpu_names, default=(), metavar="N,N", help="one Triton on each of these"
    )
    parser.add_argument("--keep", action="store_true", help="keep checkpoints and graphs")
    parser.add_argument("--no-curves", action="store_true")
    parser.add_argument(
        "--merge",
        nargs="+",
        type=Path,
        default=[],
        metavar="FOLDER",
        help="work folders of other runs, whose phases count as measured here",
    )
    parser.add_argument(
        "--redo", nargs="+", choices=PHASES, default=[], metavar="PHASE", help="measure again"
    )
    parser.add_argument(
        "--dry-run", action="store_true", help="tiny models, without a GPU, to show that it runs"
    )
    return parser
