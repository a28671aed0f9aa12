"""The command line of `reelserve loadtest`."""

from __future__ import annotations

import argparse
from pathlib import Path

from reelserve.client.argument_types import comma_separated, real_number, whole_number
from reelserve.client.generate_command import add_request_arguments
from reelserve.loadtest.plan import (
    CLOSED,
    LOOPS,
    MAX_CALLERS,
    MAX_RATE_PER_S,
    PROMPTS_FILE,
    check_levels,
    read_prompts,
)
from reelserve.loadtest.verdict import P95_S_RANGE, VIDEOS_PER_S_RANGE
from reelserve.pipeline.output_place import output_file, output_folder

DEFAULT_LEVELS = (1.0, 2.0, 4.0, 8.0)
FORMER_NAMES = {
    "--stage-seconds": "level_seconds",
    "--max-stage-seconds": "max_level_seconds",
}
"""Options that scripts may still call by the names they had before levels were called so."""
EPILOG = """\
A closed loop keeps a fixed number of requests in flight: it finds what the server can do at most.
An open loop sends requests at moments drawn beforehand, whether or not others have ended: it shows
what a crowd would see. Exit status: 0 if every goal is met, 1 if not, 2 if the command is wrong.
"""


def parse_arguments(argv: list[str], description: str | None) -> argparse.Namespace:
    """Reads the command line; ends the process with a usage message if it is wrong.

    Returns:
        The options, with `levels` (callers, or requests per second) and `sentences` (prompts).
    """
    parser = _parser(description)
    arguments = parser.parse_args(argv)
    try:
        arguments.levels = _levels(arguments)
        arguments.sentences = read_prompts(arguments.prompts)
    except ValueError as error:
        parser.error(str(error))
    except OSError as error:
        parser.error(f"argument --prompts: {arguments.prompts}: {error.strerror}")
    return arguments


def _levels(arguments: argparse.Namespace) -> tuple[float, ...]:
    closed = arguments.loop == CLOSED
    if closed and arguments.rates is not None:
        raise ValueError("--rates is for --loop open; a closed loop has --concurrency")
    if not closed and arguments.concurrency is not None:
        raise ValueError("--concurrency is for --loop closed; an open loop has --rates")
    if not closed and arguments.rates is None:
        raise ValueError("--rates is missing; --loop open needs requests per second")
    levels: tuple[float, ...]
    if closed:
        name, levels, limit = "--concurrency", arguments.concurrency or DEFAULT_LEVELS, MAX_CALLERS
    else:
        name, levels, limit = "--rates", arguments.rates, MAX_RATE_PER_S
    check_levels(name, levels, limit)
    return levels


def _parser(description: str | None) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="reelserve loadtest",
        description=description,
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    _add_server(parser.add_argument_group("server"))
    _add_load(parser.add_argument_group("load"))
    _add_windows(parser.add_argument_group("what counts"))
    _add_goals(parser.add_argument_group("goal"))
    _add_files(parser.add_argument_group("files"))
    add_request_arguments(parser)
    parser.set_defaults(seed=0)
    return parser


def _add_server(group: argparse._ArgumentGroup) -> None:
    add = group.add_argument
    add("--url", metavar="HOST:PORT", help="gRPC address; one is started where left out")
    add(
        "--model-repository",
        type=Path,
        default=Path("model_repository"),
        metavar="FOLDER",
        help="of the server that is started (%(default)s)",
    )
    add("--hardware", metavar="TEXT", help="of the server of --url, for the report")
    add(
        "--gpus",
        type=whole_number(0),
        default=0,
        metavar="N",
        help="that the server uses; throughput is divided by them; 0 is a CPU (%(default)s)",
    )


def _add_load(group: argparse._ArgumentGroup) -> None:
    add = group.add_argument
    add("--loop", choices=LOOPS, default=CLOSED, help="(%(default)s)")
    add(
        "--concurrency",
        type=comma_separated(whole_number(1)),
        metavar="N,N,…",
        help="closed loop: requests at once, rising (1,2,4,8)",
    )
    add(
        "--rates",
        type=comma_separated(real_number(0, MAX_RATE_PER_S, above=True)),
        metavar="X,X,…",
        help="open loop: requests per second, rising",
    )
    add(
        "--ramp",
        type=real_number(0),
        default=0.0,
        metavar="S",
        help="load rises linearly from one value to the next in so long; 0 is a step (%(default)g)",
    )
    add(
        "--prompts",
        type=Path,
        default=PROMPTS_FILE,
        metavar="FILE",
        help="one sentence a line (50 of the bundled world)",
    )


def _add_windows(group: argparse._ArgumentGroup) -> None:
    add = group.add_argument
    clips, seconds = whole_number(1), real_number(0)
    add(
        "--clips",
        type=clips,
        default=8,
        metavar="N",
        help="at least so many count at each load (%(default)s)",
    )
    add(
        "--rounds",
        type=clips,
        default=3,
        metavar="N",
        help="closed loop: at least so many of each caller count (%(default)s)",
    )
    add(
        "--level-seconds",
        type=seconds,
        default=0.0,
        metavar="S",
        help="each load counts for at least so long (%(default)g)",
    )
    add(
        "--warm-up",
        type=whole_number(0),
        default=1,
        metavar="N",
        help="clips of each load that end before any counts, at least a round (%(default)s)",
    )
    add(
        "--warm-up-seconds",
        type=seconds,
        default=0.0,
        metavar="S",
        help="and seconds (%(default)g)",
    )
    add(
        "--max-level-seconds",
        type=real_number(0, above=True),
        default=1800.0,
        metavar="S",
        help="a load that takes longer ends the test as failed (%(default)g)",
    )
    for old, dest in FORMER_NAMES.items():
        add(old, dest=dest, type=seconds, default=argparse.SUPPRESS, help=argparse.SUPPRESS)


def _add_goals(group: argparse._ArgumentGroup) -> None:
    add = group.add_argument
    add(
        "--goal-videos-per-s",
        type=real_number(0),
        default=VIDEOS_PER_S_RANGE[0],
        metavar="X",
        help="at least so many videos of 10 s per second and GPU (%(default)g)",
    )
    add(
        "--goal-p95-s",
        type=real_number(0),
        default=P95_S_RANGE[0],
        metavar="S",
        help="95%% of them take at most so long (%(default)g)",
    )
    add(
        "--max-error-share",
        type=real_number(0, 1),
        default=0.01,
        metavar="X",
        help="at most this share of requests fails (%(default)g)",
    )


def _add_files(group: argparse._ArgumentGroup) -> None:
    add = group.add_argument
    add(
        "--output-dir",
        type=output_folder("report.html", "sweep.png", "loadtest.json"),
        default="build/loadtest",
        metavar="FOLDER",
        help="takes report.html, sweep.png, loadtest.json and CSV files (%(default)s)",
    )
    add("--json", type=output_file, metavar="FILE", help="takes the results too")
    add(
        "--plot",
        type=output_file,
        metavar="FILE",
        help="takes the plot of the sweep too, PNG",
    )
