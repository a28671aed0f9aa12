"""Draw videos from sentences and save them: MP4, WebM, GIF, or a picture of twelve frames."""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import cast

from rich.console import Console
from rich.table import Table

from reelserve.client._base import DEFAULT_TIMEOUT_S
from reelserve.client._client import Client
from reelserve.client._exceptions import ReelserveError
from reelserve.client._options import MAX_TIMEOUT_S, GenerateOptions
from reelserve.client._video import Video, check_format
from reelserve.client.argument_types import real_number, whole_number
from reelserve.client.cli import FAILURE, OK, error_console
from reelserve.client.connection_arguments import add_connection_arguments, client_settings
from reelserve.client.progress import follow
from reelserve.client.prompts import (
    STANDARD_INPUT,
    has_standard_input,
    prompts_in,
    read_prompt,
)
from reelserve.pipeline.atomic_file import write_descriptor, write_file
from reelserve.pipeline.output_place import check_output, is_special, own_descriptor
from reelserve.pipeline.request import MAX_SEED, PRIORITIES, check_seed

STANDARD_OUTPUT = Path("-")
STDOUT = 1
"""Its descriptor."""
WHAT_TO_ASK = """What a sentence leaves open is chosen by the seed. `reelserve capabilities` tells
what a server's checkpoint knows by name, where the checkpoint says so."""
MIN_DIGITS = 3
"""Digits of the number in the name of a clip, so that names sort."""


@dataclass(frozen=True)
class ClipJob:
    """A clip that was asked for.

    Args:
        prompt: Its sentence.
        seed: Its seed; None lets the server draw one.
        path: File to write; `-` for standard output.
    """

    prompt: str
    seed: int | None
    path: Path


def run(argv: list[str]) -> int:
    """Runs `reelserve generate` and returns its exit status."""
    parser = _parser()
    arguments = parser.parse_args(argv)
    try:
        jobs = _jobs(arguments)
        _check_places(jobs, arguments)
        client = Client(**client_settings(arguments))
        _begin_list(_list_file(arguments))
    except (ReelserveError, ValueError, OSError) as error:
        parser.error(str(error))
    with client:
        failed = sum(not _done(client, job, arguments) for job in jobs)
    if failed and len(jobs) > 1:
        error_console().print(f"reelserve generate: {failed} of {len(jobs)} clips failed")
    return FAILURE if failed else OK


def add_request_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the optional fields of a request."""
    group = parser.add_argument_group(
        "request",
        "limits and defaults are those of the served checkpoint; a value outside is refused with "
        "its limits",
    )
    add = group.add_argument
    add(
        "--negative-prompt",
        metavar="TEXT",
        help="what the clip should not show; read with a guidance scale above 1",
    )
    add(
        "--seed",
        type=int,
        metavar="N",
        help=f"the same seed gives the same clip; 0 to {MAX_SEED}",
    )
    add(
        "--steps",
        "--num-inference-steps",
        type=int,
        metavar="N",
        dest="num_inference_steps",
        help="denoising steps",
    )
    add("--guidance-scale", type=float, metavar="X", help="how closely to follow the sentence")
    add("--num-frames", type=int, metavar="N", help="frames of the clip")
    add("--fps", type=int, metavar="N", help="frames per second")
    add("--height", type=int, metavar="PX", help="rows of a frame")
    add("--width", type=int, metavar="PX", help="columns of a frame")
    add("--priority", choices=PRIORITIES, help="batch lets interactive requests pass")
    add(
        "--timeout",
        type=real_number(0, MAX_TIMEOUT_S, above=True),
        default=DEFAULT_TIMEOUT_S,
        metavar="S",
        dest="timeout_s",
        help="give up after this many seconds (%(default)g)",
    )
    add(
        "--retries",
        type=whole_number(0),
        default=0,
        metavar="N",
        dest="max_retries",
        help="ask so often again where the server is full (%(default)s)",
    )


def request_options(arguments: argparse.Namespace) -> GenerateOptions:
    """The fields that `add_request_arguments` read."""
    names = GenerateOptions.__annotations__
    return cast(GenerateOptions, {name: getattr(arguments, name) for name in names})


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="reelserve generate", description=__doc__, epilog=WHAT_TO_ASK
    )
    add = parser.add_argument
    add(
        "prompt",
        nargs="?",
        metavar="PROMPT",
        help="a sentence; '-', or nothing where standard input is no terminal, reads it there",
    )
    add("--prompts", metavar="FILE", help="file with a sentence a line, '-' for standard input")
    add(
        "--num-videos",
        type=whole_number(1),
        default=1,
        metavar="N",
        help="clips of each sentence, with the seeds --seed, --seed + 1, … (%(default)s)",
    )
    add(
        "-o",
        "--output",
        type=Path,
        default=Path("out.mp4"),
        metavar="FILE",
        help="ends with .mp4, .webm, .gif or .png (twelve frames); '-' writes the MP4 to standard "
        "output; several clips are out-001.mp4 and so on, with prompts and seeds in out.jsonl "
        "(%(default)s)",
    )
    add("--force", action="store_true", help="overwrite files that exist")
    add("--preview", type=Path, metavar="FILE", help="PNG file for a first picture, half-way")
    add_request_arguments(parser)
    add_connection_arguments(parser)
    return parser


def _jobs(arguments: argparse.Namespace) -> list[ClipJob]:
    prompts, count = _prompts(arguments), arguments.num_videos
    if arguments.seed is not None:
        for seed in (arguments.seed, arguments.seed + count - 1):
            check_seed(seed)
    if not _is_several(arguments):
        return [ClipJob(prompts[0], arguments.seed, arguments.output)]
    output, total = arguments.output, len(prompts) * count
    if output == STANDARD_OUTPUT or own_descriptor(output) is not None or is_special(output):
        raise ValueError(f"--output {output} takes 1 clip; several need files to be numbered")
    if arguments.preview is not None:
        raise ValueError("--preview takes the first picture of 1 clip; several are asked for")
    digits = max(MIN_DIGITS, len(str(total)))
    return [
        ClipJob(
            prompt,
            None if arguments.seed is None else arguments.seed + take,
            output.with_name(f"{output.stem}-{index * count + take + 1:0{digits}}{output.suffix}"),
        )
        for index, prompt in enumerate(prompts)
        for take in range(count)
    ]


def _is_several(arguments: argparse.Namespace) -> bool:
    """Whether clips are numbered, be it that there is one: a script knows the names before."""
    return arguments.prompts is not None or arguments.num_videos > 1


def _prompts(arguments: argparse.Namespace) -> list[str]:
    if arguments.prompts is not None:
        if arguments.prompt is not None:
            raise ValueError("a sentence and --prompts are given; it must be one of them")
        return prompts_in(arguments.prompts)
    if arguments.prompt not in (None, STANDARD_INPUT):
        return [arguments.prompt]
    if arguments.prompt is None and not has_standard_input():
        raise ValueError("no sentence is given: PROMPT, --prompts FILE, or standard input")
    return [read_prompt()]


def _check_places(jobs: list[ClipJob], arguments: argparse.Namespace) -> None:
    """Looks before anything is drawn whether all of it can be saved."""
    for job in jobs:
        if job.path == STANDARD_OUTPUT:
            if sys.stdout is None or sys.stdout.isatty():
                raise ValueError("standard output must be a file or a program for --output -")
            continue
        check_output(job.path, overwrite=arguments.force)
        check_format(job.path)
    for path in (arguments.preview, _list_file(arguments)):
        if path is not None:
            check_output(path, overwrite=arguments.force)


def _list_file(arguments: argparse.Namespace) -> Path | None:
    """Takes a line of JSON for every clip of several."""
    return arguments.output.with_suffix(".jsonl") if _is_several(arguments) else None


def _begin_list(file: Path | None) -> None:
    if file is not None:
        write_file(file, "")


def _done(client: Client, job: ClipJob, arguments: argparse.Namespace) -> bool:
    """Draws and saves a clip; says why where that fails."""
    stderr = error_console()
    options: GenerateOptions = {**request_options(arguments), "seed": job.seed}
    list_file = _list_file(arguments)
    try:
        with client.stream(job.prompt, **options) as events:
            video = follow(events, stderr, _preview_writer(arguments.preview))
        _save(video, job.path)
        if list_file is not None:
            _note(list_file, job, video)
    except (ReelserveError, OSError) as error:
        which = f"{job.path}: " if list_file is not None else ""
        stderr.print(f"reelserve generate: {which}{error}")
        return False
    _report(video, job.path)
    return True


def _save(video: Video, path: Path) -> None:
    if path == STANDARD_OUTPUT:
        write_descriptor(STDOUT, video.mp4)
    else:
        video.save(path)


def _note(file: Path, job: ClipJob, video: Video) -> None:
    """Adds a clip to the list."""
    told = {"file": job.path.name, "prompt": job.prompt, **asdict(video.info)}
    with file.open("a", encoding="utf-8") as opened:
        opened.write(json.dumps(told, ensure_ascii=False) + "\n")


def _preview_writer(path: Path | None) -> Callable[[bytes], object]:
    """Writes a first picture to a file; nothing without one."""
    if path is None:
        return lambda png: None
    return lambda png: write_file(path, png)


def _report(video: Video, path: Path) -> None:
    """Says what was drawn; a reader that has gone, of a pipe, costs no clip that is to come."""
    to_stdout = path == STANDARD_OUTPUT or own_descriptor(path) == STDOUT
    stream = sys.stderr if to_stdout else sys.stdout
    if stream is None:
        return
    console, info = Console(file=stream, highlight=False), video.info
    table = Table("stage", "seconds", box=None, pad_edge=False)
    for stage, seconds in info.seconds.items():
        table.add_row(stage, f"{seconds:.2f}")
    with console.capture() as report:
        console.print(table)
        console.print(
            f"{path}: {info.duration_s:g} s of {info.width}×{info.height}, seed {info.seed}",
            markup=False,
            soft_wrap=True,
        )
    try:
        stream.write(report.get())
        stream.flush()
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
