"""Start a Triton server, draw one sentence, save the clip, stop the server."""

from __future__ import annotations

import argparse
import time
from pathlib import Path

from rich.console import Console

from reelserve.client import Client, ReelserveError, Video
from reelserve.client.cli import FAILURE, OK, error_console
from reelserve.client.generate_command import add_request_arguments, request_options
from reelserve.client.progress import follow
from reelserve.pipeline.output_place import output_folder
from reelserve.server.launch.installation import InstallationError
from reelserve.server.launch.running_server import Server
from reelserve.server.launch.triton_process import ServerError
from reelserve.server.launch.tritons import ServeOptions
from reelserve.tools.bench.stage_times import settled_statistics, stage_seconds, stage_table


def run(argv: list[str]) -> int:
    """Runs `reelserve demo` and returns its exit status."""
    arguments = _parser().parse_args(argv)
    console = Console(highlight=False, markup=False)
    options = ServeOptions(
        model_repository=arguments.model_repository,
        log_file=arguments.output_dir / "triton.log",
    )
    try:
        console.print(f"starting Triton over {arguments.model_repository}", soft_wrap=True)
        with Server(options) as server:
            console.print(f"ready after {server.ready_s:.1f} s, gRPC on {server.grpc_url}")
            video = _draw(server.grpc_url, arguments, console)
        _save(video, arguments, console)
    except (InstallationError, ServerError, ReelserveError, OSError) as error:
        error_console().print(f"reelserve demo: {error}")
        return FAILURE
    return OK


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="reelserve demo", description=__doc__)
    parser.add_argument("prompt", help="a sentence")
    parser.add_argument(
        "--model-repository", type=Path, default=Path("model_repository"), metavar="FOLDER"
    )
    parser.add_argument(
        "--output-dir",
        type=output_folder("demo.mp4", "demo.png", "triton.log"),
        default="build",
        metavar="FOLDER",
        help="takes demo.mp4, demo.png and triton.log (%(default)s)",
    )
    add_request_arguments(parser)
    return parser


def _draw(url: str, arguments: argparse.Namespace, console: Console) -> Video:
    console.print(f"drawing “{arguments.prompt}”", soft_wrap=True)
    with Client(url) as client:
        before = client.statistics()
        started = time.monotonic()
        with client.stream(arguments.prompt, **request_options(arguments)) as events:
            video = follow(events, console)
        total_s = time.monotonic() - started
        after = settled_statistics(client, before)
    seconds = stage_seconds(before, after, video.info.seconds["video_diffusion"])
    console.print(stage_table(seconds, total_s))
    return video


def _save(video: Video, arguments: argparse.Namespace, console: Console) -> None:
    clip = video.save(arguments.output_dir / "demo.mp4")
    sheet = video.save(arguments.output_dir / "demo.png")
    info = video.info
    console.print(
        f"{clip}: {info.duration_s:g} s of {info.width}×{info.height}, "
        f"{info.num_inference_steps} steps, seed {info.seed}\n{sheet}: its frames",
        soft_wrap=True,
    )
