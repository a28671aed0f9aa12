"""Turn a checkpoint into the graphs of a Triton model repository."""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from reelserve.export.builds import BuildError
from reelserve.export.engines import ENGINES, Engine, get_engine
from reelserve.export.exporter import Exporter, ExportResult
from reelserve.export.families import family_of
from reelserve.export.families.layout import Checkpoint
from reelserve.export.families.limits import ProfileError
from reelserve.export.parity import ENGINE_STAGES, ParityError, StageParity, gives_frames
from reelserve.export.repository import ModelRepository
from reelserve.export.stages import DTYPES
from reelserve.pipeline.atomic_file import write_file
from reelserve.pipeline.checkpoint_files import read_json_object
from reelserve.pipeline.output_place import output_file
from reelserve.pipeline.provenance import provenance
from reelserve.runtimes.export_lock import LOCK_FILE, ExportLock, LockError
from reelserve.runtimes.repository_files import verify_repository

EXIT_OK = 0
EXIT_FAILED = 1


def run(argv: list[str]) -> int:
    """Exports a checkpoint into a model repository.

    Args:
        argv: Arguments after `reelserve export`.

    Returns:
        Exit status.
    """
    arguments = _parser().parse_args(argv)
    console, errors = Console(), Console(stderr=True)
    if arguments.verify:
        return _verify(arguments.model_repository, console, errors)
    try:
        result = _export(arguments, errors)
        if arguments.parity_report:
            _write_report(arguments.parity_report, result, get_engine(arguments.engine))
    except ProfileError as error:
        shown = escape(f"{arguments.profile or 'limits'}: {error}")
        errors.print(f"[red]export failed:[/red] {shown}", soft_wrap=True)
        return EXIT_FAILED
    except (OSError, ValueError, BuildError, ParityError) as error:
        errors.print(f"[red]export failed:[/red] {escape(str(error))}", soft_wrap=True)
        return EXIT_FAILED
    except KeyboardInterrupt:
        errors.print("export stopped; the same command goes on with the stage that is not done")
        return EXIT_FAILED
    for name in result.updated:
        console.print(f"updated {name}", highlight=False)
    console.print(_table(result))
    if result.frames_psnr_db is not None:
        console.print(f"frames against torch: {result.frames_psnr_db:.1f} dB", highlight=False)
    built = get_engine(arguments.engine).file_name
    others = {record.parity.checked for record in result.records.values()} - {built}
    if others:
        console.print(
            f"checked by {', '.join(sorted(others))}: {built} cannot run on this machine",
            highlight=False,
        )
    return EXIT_OK


def _verify(repository: Path, console: Console, errors: Console) -> int:
    """Compares a repository with its export; see `verify_repository`."""
    try:
        lock = ExportLock.load(repository)
        if lock is None:
            raise LockError(f"{repository / LOCK_FILE} is missing: there is no finished export")
        count = verify_repository(repository, lock)
    except (OSError, ValueError) as error:
        errors.print(f"[red]not as exported:[/red] {escape(str(error))}", soft_wrap=True)
        return EXIT_FAILED
    console.print(f"{repository}: {count} files as exported", highlight=False, soft_wrap=True)
    return EXIT_OK


def _export(arguments: argparse.Namespace, console: Console) -> ExportResult:
    bar = Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("stages"),
        TimeElapsedColumn(),
        console=console,
        transient=True,
    )
    checkpoint = Checkpoint.open(arguments.checkpoint, arguments.variant)
    with bar:
        task = bar.add_task("", total=None)
        exporter = Exporter(
            family_of(checkpoint, profile(arguments)),
            get_engine(arguments.engine),
            ModelRepository(arguments.model_repository),
            progress=lambda what, done, total: bar.update(
                task, description=what, completed=done, total=total or None
            ),
            precision=arguments.precision,
            fp32_stages=tuple(arguments.fp32_stages),
            jobs=arguments.jobs,
        )
        return exporter.run(force=arguments.force)


def profile(arguments: argparse.Namespace) -> dict[str, Any]:
    """Changes of the request limits that the command line asks for.

    Raises:
        OSError: If the file cannot be read.
        ValueError: If it holds no JSON object.
    """
    changes: dict[str, Any] = {}
    if arguments.profile is not None:
        changes = read_json_object(arguments.profile)
    for name in ("num_frames", "height", "width", "fps"):
        value = getattr(arguments, name)
        if value is not None:
            changes[name] = {"low": value, "high": value, "default": value}
    return changes


def add_fp32_stages(parser: argparse.ArgumentParser, purpose: str) -> None:
    """Adds `--fp32-stages`, names of engine stages.

    Args:
        parser: To add it to.
        purpose: For the help.
    """
    parser.add_argument(
        "--fp32-stages",
        nargs="+",
        default=[],
        choices=ENGINE_STAGES,
        metavar="STAGE",
        help=purpose,
    )


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="reelserve export",
        description="Turns a checkpoint into the graphs of a Triton model repository.",
    )
    parser.add_argument(
        "--checkpoint",
        type=Path,
        default=Path("checkpoints/bundled"),
        help="folder in the diffusers layout (default: %(default)s)",
    )
    parser.add_argument(
        "--variant",
        default="",
        metavar="NAME",
        help="of the weights, as in diffusers: fp16 takes *.fp16.safetensors where there are any",
    )
    parser.add_argument(
        "--model-repository",
        type=Path,
        default=Path("model_repository"),
        help="folder for Triton to serve; made where it is missing (default: %(default)s)",
    )
    parser.add_argument(
        "--engine",
        choices=sorted(ENGINES),
        default="onnxruntime",
        help="what runs the stages (default: %(default)s)",
    )
    parser.add_argument(
        "--precision",
        choices=list(DTYPES),
        help="of weights and products (default: the engine's own)",
    )
    add_fp32_stages(
        parser, "stages that stay in fp32, whose values a lower precision does not hold"
    )
    parser.add_argument(
        "--jobs",
        type=_jobs,
        default=1,
        metavar="N",
        help="stages that are built at once, each in memory (default: %(default)s)",
    )
    parser.add_argument(
        "--profile",
        type=Path,
        metavar="FILE",
        help='changes of the request limits, as JSON: {"num_frames": {"high": 121, "default": 49}}',
    )
    for name, text in (
        ("num-frames", "frames of every clip"),
        ("height", "height of every clip, pixels"),
        ("width", "width of every clip, pixels"),
        ("fps", "frames per second of every clip"),
    ):
        parser.add_argument(f"--{name}", type=int, metavar="N", help=f"the only {text}")
    parser.add_argument("--force", action="store_true", help="export what is up to date, too")
    parser.add_argument(
        "--verify",
        action="store_true",
        help="export nothing; compare every file of the model repository with its export",
    )
    parser.add_argument(
        "--parity-report", type=output_file, help="JSON file to write the errors against torch to"
    )
    return parser


def _jobs(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"jobs is {text}; it must be at least 1")
    return int(text)


def _table(result: ExportResult) -> Table:
    table = Table("stage", "parameters", "size", "seconds", "parity")
    for column in table.columns[1:]:
        column.justify = "right"
    for name, record in result.records.items():
        table.add_row(
            name,
            f"{record.num_parameters / 1e6:.2f} M",
            f"{record.size_bytes / 1e6:.1f} MB",
            f"{record.seconds:.1f}" if name in result.exported else "up to date",
            _parity(name, record.parity),
        )
    return table


def _parity(stage: str, parity: StageParity) -> str:
    """The figure that a graph is judged on above all."""
    if gives_frames(stage):
        return f"{parity.max_abs_error:g} of 255"
    return f"{parity.relative_error:.1e}"


def _write_report(path: Path, result: ExportResult, engine: Engine) -> None:
    stages = {name: asdict(record.parity) for name, record in result.records.items()}
    report = {
        "frames_psnr_db": result.frames_psnr_db,
        "stages": stages,
        "versions": engine.versions(),
        **provenance(),
    }
    write_file(path, json.dumps(report, indent=2) + "\n")
