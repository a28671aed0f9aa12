"""Measure TensorRT plans on one NVIDIA GPU: docs/results/bench_tensorrt_<gpu>.json."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from pathlib import Path

from reelserve.client.cli import FAILURE, OK, error_console
from reelserve.runtimes.tensorrt_plan import TensorRTError
from reelserve.tools.bench.tensorrt.models import MODELS, Model, chosen
from reelserve.tools.results_file import write_json

PARSE = "parse"
PARTS = (PARSE,)


def run(argv: list[str]) -> int:
    """Runs `reelserve bench-tensorrt` and returns its exit status."""
    parser = _parser()
    arguments = parser.parse_args(argv)
    console = error_console()
    try:
        models = chosen(arguments.models)
    except ValueError as error:
        parser.error(str(error))
    work: Path = arguments.work_dir.resolve()
    try:
        return _parse(models, work, lambda line: console.print(line, markup=False, soft_wrap=True))
    except TensorRTError as error:
        console.print(f"reelserve bench-tensorrt: {error}")
        return FAILURE


def _parse(models: Sequence[Model], work: Path, tell: Callable[[str], None]) -> int:
    # Here, because torch and the exporter take seconds to import, which `--help` need not wait for.
    from reelserve.tools.bench.tensorrt.parsing import parse_all

    results = parse_all(models, work, tell)
    write_json(work / "parse.json", results)
    return FAILURE if any(found["error"] for found in results) else OK


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="reelserve bench-tensorrt", description=__doc__)
    names = ", ".join(model.name for model in MODELS)
    parser.add_argument("--only", choices=PARTS, help="one part of the work")
    parser.add_argument("--models", metavar="MODEL[,MODEL]", help=f"some of {names}")
    parser.add_argument(
        "--work-dir", type=Path, default=Path("build/bench_tensorrt"), metavar="FOLDER"
    )
    return parser
