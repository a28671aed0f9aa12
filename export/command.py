"""Turn a checkpoint into the graphs of a Triton model repository."""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from reelserve.export.engines import ENGINES, Engine
from reelserve.export.exporter import Exporter, ExportResult, ParityError
from reelserve.export.families import family_of
from reelserve.export.families.layout import Checkpoint
from reelserve.export.repository import ModelRepository
from reelserve.pipeline.provenance import provenance

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
    engine = ENGINES[arguments.engine]
    try:
        checkpoint = Checkpoint.open(arguments.checkpoint)
        with console.status("") as status:
            exporter = Exporter(
                family_of(checkpoint, profile(arguments)),
                engine,
                ModelRepository(arguments.model_repository),
                progress=lambda stage: status.update(f"exporting {stage}"),
            )
            result = exporter.run(force=arguments.force)
        if arguments.parity_report:
            _write_report(arguments.parity_report, result, engine)
    except (OSError, ValueError, ParityError) as error:
        errors.print(f"[red]export failed:[/red] {error}", highlight=False, soft_wrap=True)
        return EXIT_FAILED
    console.print(_table(result))
    if result.frames_psnr_db is not None:
        console.print(f"frames against torch: {result.frames_psnr_db:.1f} dB", highlight=False)
    return EXIT_OK


def profile(arguments: argparse.Namespace) -> dict[str, Any]:
    """Changes of the request limits that the command line asks for.

    Raises:
        OSError: If the file cannot be read.
        ValueError: If it holds no JSON object.
    """
    changes: dict[str, Any] = {}
    if arguments.profile is not None:
        try:
            changes = json.loads(arguments.profile.read_text())
        except json.JSONDecodeError as error:
            raise ValueError(f"{arguments.profile}: not valid JSON: {error}") from None
        if not isinstance(changes, dict):
            raise ValueError(f"{arguments.profile}: must hold a JSON object")
    for name in ("num_frames", "height", "width", "fps"):
        value = getattr(arguments, name)
        if value is not None:
            changes[name] = {"low": value, "high": value, "default": value}
    return changes


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
        "--model-repository",
        type=Path,
        default=Path("model_repository"),
        help="folder that Triton serves (default: %(default)s)",
    )
    parser.add_argument("--engine", choices=sorted(ENGINES), default="onnxruntime")
    parser.add_argument(
        "--profile",
        type=Path,
        metavar="FILE",
        help='changes of the request limits, as JSON: {"num_frames": {"high": 121, "default": 49}}',
    )
    for name, text in (
        ("num-frames", "frames of every clip"),
        ("height", "pixels of every clip"),
        ("width", "pixels of every clip"),
        ("fps", "frames per second of every clip"),
    ):
        parser.add_argument(f"--{name}", type=int, metavar="N", help=f"the only {text}")
    parser.add_argument("--force", action="store_true", help="export what is up to date, too")
    parser.add_argument(
        "--parity-report", type=Path, help="JSON file to write the errors against torch to"
    )
    return parser


def _table(result: ExportResult) -> Table:
    table = Table("stage", "parameters", "size", "seconds", "max error")
    for column in table.columns[1:]:
        column.justify = "right"
    for name, record in result.records.items():
        table.add_row(
            name,
            f"{record.num_parameters / 1e6:.2f} M",
            f"{record.size_bytes / 1e6:.1f} MB",
            f"{record.seconds:.1f}" if name in result.exported else "up to date",
            f"{record.parity.max_abs_error:.2g} of {record.parity.max_abs_value:.3g}",
        )
    return table


def _write_report(path: Path, result: ExportResult, engine: Engine) -> None:
    stages = {name: asdict(record.parity) for name, record in result.records.items()}
    report = {
        "frames_psnr_db": result.frames_psnr_db,
        "stages": stages,
        "versions": engine.versions(),
        **provenance(),
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(report, indent=2) + "\n")
