"""Arguments that the benchmarks on GPUs have in common, and what follows from them."""

from __future__ import annotations

import argparse
import importlib.metadata
from pathlib import Path
from typing import Any

from reelserve.client.argument_types import real_number, whole_number
from reelserve.export.engines import ENGINES, get_engine
from reelserve.export.stages import DTYPES
from reelserve.pipeline.output_place import output_file
from reelserve.tools.bench.gpu.cases import CASES, Case
from reelserve.tools.bench.gpu.gpu_monitor import gpu_query
from reelserve.tools.bench.gpu.phases import Options
from reelserve.tools.bench.gpu.state import State

INCOMPLETE = 3
"""Exit status: what was measured is kept, and the same command goes on."""
NO_GPU = "cpu"
ENGINE = "pytorch"
"""What is measured unless told otherwise, and whose results file is named after the GPU alone."""
STATE_FILE = "state.json"
EPILOG = """\
Every phase is kept on disk as soon as it ends; the same command goes on with the next one. Exit
status: 0 if all is measured, 1 if something failed, 2 if the command is wrong, 3 if the budget
ended before the last phase.
"""
PACKAGES = ("torch", "triton", "diffusers", "transformers", "nvidia-pytriton")


def new_parser(
    command: str, description: str | None, phases: tuple[str, ...]
) -> argparse.ArgumentParser:
    """A parser with the arguments that all have.

    Args:
        command: Its name, `reelserve` before it.
        description: What it does.
        phases: What `--redo` takes.
    """
    parser = argparse.ArgumentParser(
        prog=f"reelserve {command}",
        description=description,
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    names = ", ".join(case.name for case in CASES)
    add("--only", metavar="CASE[,CASE]", help=f"some of {names}")
    add(
        "--budget-seconds",
        type=real_number(0, above=True),
        metavar="N",
        help="end before a phase that would not fit; status 3",
    )
    add("--work-dir", type=Path, default=Path("build/bench_gpu"), metavar="FOLDER")
    add("--checkpoint-dir", type=Path, metavar="FOLDER", help="for checkpoints (the work folder)")
    add("--output", type=output_file, metavar="FILE", help="named after the GPU")
    add("--engine", choices=sorted(ENGINES), default=ENGINE)
    add("--precision", choices=list(DTYPES), help="bf16; of a dry run fp32")
    add("--jobs", type=whole_number(1), default=1, help="stages built at once")
    add("--ready-timeout", type=real_number(1), default=600.0, metavar="S", help="of the server")
    add("--keep", action="store_true", help="keep checkpoints and graphs")
    add(
        "--merge",
        nargs="+",
        type=Path,
        default=[],
        metavar="FOLDER",
        help="work folders of other runs, whose phases count as measured here",
    )
    add("--redo", nargs="+", choices=phases, default=[], metavar="PHASE", help="measure again")
    add("--dry-run", action="store_true", help="tiny models, without a GPU, to show that it runs")
    return parser


def options_of(arguments: argparse.Namespace) -> Options:
    """How to run, from the parsed arguments."""
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
    )


def state_of(
    arguments: argparse.Namespace,
    options: Options,
    cases: tuple[Case, ...],
) -> State:
    """What was measured here and in the folders that are merged, less what is to be redone.

    Args:
        arguments: Parsed.
        options: What they mean.
        cases: Whose phases `--redo` names.

    Raises:
        ValueError: If nothing was measured in a folder that is to be merged.
    """
    names = ("engine", "precision", "tiny")
    settings = {name: getattr(options, name) for name in names}
    state = State(options.work / STATE_FILE, settings, _machine(options))
    for folder in arguments.merge:
        state.take_over(folder / STATE_FILE)
    for phase in arguments.redo:
        for case in cases:
            state.forget(case, phase)
    return state


def _machine(options: Options) -> dict[str, Any]:
    return {
        "gpu": gpu_query("name") or NO_GPU,
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
