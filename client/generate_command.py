"""Draw a video from a sentence and save it as an MP4 file."""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable
from pathlib import Path
from typing import cast

from rich.console import Console
from rich.table import Table

from reelserve.client._base import DEFAULT_TIMEOUT_S, DEFAULT_URL
from reelserve.client._client import Client
from reelserve.client._exceptions import ReelserveError
from reelserve.client._options import GenerateOptions
from reelserve.client._video import Video
from reelserve.client.cli import FAILURE, OK, error_console
from reelserve.client.progress import follow
from reelserve.pipeline.request import PRIORITIES

SERVER_VARIABLE = "REELSERVE_SERVER"


def run(argv: list[str]) -> int:
    """Runs `reelserve generate` and returns its exit status."""
    parser = _parser()
    arguments = parser.parse_args(argv)
    if arguments.output.is_dir():
        parser.error(f"--output {arguments.output} is a folder; it must be a file")
    stderr = error_console()
    try:
        with (
            Client(arguments.server) as client,
            client.stream(arguments.prompt, **request_options(arguments)) as events,
        ):
            video = follow(events, stderr, _preview_writer(arguments.preview))
        video.save(arguments.output)
    except (ReelserveError, OSError) as error:
        stderr.print(f"reelserve generate: {error}")
        return FAILURE
    _report(video, arguments.output, Console(highlight=False))
    return OK


def add_request_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the optional fields of a request; limits and defaults are the server's."""
    add = parser.add_argument
    add("--negative-prompt", metavar="TEXT", help="what the clip should not show")
    add("--seed", type=int, metavar="N", help="the same seed gives the same clip")
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
        type=float,
        default=DEFAULT_TIMEOUT_S,
        metavar="S",
        dest="timeout_s",
        help="give up after this many seconds (%(default)g)",
    )
    add(
        "--retries",
        type=int,
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
    parser = argparse.ArgumentParser(prog="reelserve generate", description=__doc__)
    parser.add_argument("prompt", help="a sentence")
    parser.add_argument(
        "-o", "--output", type=Path, default=Path("out.mp4"), help="MP4 file (%(default)s)"
    )
    parser.add_argument(
        "--server",
        default=os.environ.get(SERVER_VARIABLE, DEFAULT_URL),
        metavar="HOST:PORT",
        help=f"gRPC address; {SERVER_VARIABLE} sets the default (%(default)s)",
    )
    parser.add_argument(
        "--preview", type=Path, metavar="FILE", help="PNG file for a first picture, half-way"
    )
    add_request_arguments(parser)
    return parser


def _preview_writer(path: Path | None) -> Callable[[bytes], object]:
    """Writes a first picture to a file; nothing without one."""
    return path.write_bytes if path is not None else lambda png: None


def _report(video: Video, path: Path, console: Console) -> None:
    info = video.info
    table = Table("stage", "seconds", box=None, pad_edge=False)
    for stage, seconds in info.seconds.items():
        table.add_row(stage, f"{seconds:.2f}")
    console.print(table)
    console.print(
        f"{path}: {info.duration_s:g} s of {info.width}×{info.height}, seed {info.seed}",
        markup=False,
        soft_wrap=True,
    )
