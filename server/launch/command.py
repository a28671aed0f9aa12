"""Serve a model repository with NVIDIA Triton in the foreground until Ctrl-C."""

from __future__ import annotations

import argparse
import asyncio
import json
import logging
import os
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from reelserve.server.frontend.connections import KEEPALIVE_S
from reelserve.server.frontend.ports import PortError
from reelserve.server.frontend.reloaded import DoorError
from reelserve.server.launch.door_options import add_door_arguments, doors_of
from reelserve.server.launch.installation import InstallationError
from reelserve.server.launch.log_options import TracingError, add_log_arguments
from reelserve.server.launch.open_files import raise_limit
from reelserve.server.launch.repository_check import RepositoryError, check_repository
from reelserve.server.launch.run_folder import FolderError
from reelserve.server.launch.server_log import LogError, ServerLog, server_log
from reelserve.server.launch.serving import Running, announced, needed_by, serve
from reelserve.server.launch.triton_process import ServerError
from reelserve.server.launch.tritons import ServeOptions

MAX_PORT = 65535
MAX_INTERVAL_S = 1_000_000
"""gRPC counts milliseconds in 31 bits."""
REFUSALS = (
    *(ServerError, PortError, DoorError, InstallationError, RepositoryError, FolderError),
    *(LogError, TracingError),
)
"""Errors whose message says all that there is to say."""
EXPECTED = (*REFUSALS, OSError, ValueError, KeyError)
"""The same, and those of a damaged repository or a full disk."""
NUMBERS = (
    ("ready_timeout", 120.0, "bound on the start"),
    ("drain_timeout", 300.0, "clips in flight may go on for so long once it is told to end"),
    ("hang_timeout", 30.0, "a process stopped, or Triton silent, for so long is started again"),
)

_log = logging.getLogger(__name__)


def run(argv: Sequence[str]) -> int:
    """Runs the command.

    Args:
        argv: Arguments after the command's name.

    Returns:
        Exit status: 0 if it was told to end, 1 if the server failed.
    """
    options, ready_fd, check = parse_options(argv)
    # For logs, folders and sockets of every process of the server.
    os.umask(0o077)
    try:
        if check:
            sys.stdout.write(json.dumps(checked(options)) + "\n")
            return 0
        with server_log(options.log_format, options.log_file) as log:
            return _served(options, ready_fd, log)
    except EXPECTED as error:
        sys.stderr.write(_words(error) + "\n")
        return 1


def _served(options: ServeOptions, ready_fd: int | None, log: ServerLog) -> int:
    """Serves; gives the exit status."""

    def ready(running: Running) -> None:
        log.say("info", running.described())
        if ready_fd is not None:
            with os.fdopen(ready_fd, "w") as told:
                told.write(announced(running) + "\n")

    try:
        raise_limit()
        asyncio.run(serve(options, ready, log))
    except EXPECTED as error:
        log.say("error", _words(error))
        return 1
    except Exception:
        # Here and not at the interpreter's end, where the log is closed.
        _log.critical("the server has failed by a mistake of its own", exc_info=True)
        return 1
    return 0


def _words(error: BaseException) -> str:
    return str(error) if isinstance(error, REFUSALS) else f"{type(error).__name__}: {error}"


def checked(options: ServeOptions) -> dict[str, Any]:
    """Checks a repository as a start does, without starting anything.

    Returns:
        `shared_memory_bytes`: what the service needs of `/dev/shm`; `shm_size`: the same for
        `--shm-size`; `clip_bytes`: frames of the largest clip; `places`: clips that take denoising
        steps at once.

    Raises:
        RepositoryError: If it cannot be served.
        DoorError: If keys or certificates cannot be used.
    """
    doors_of(options)
    lock = check_repository(options.model_repository, verify=options.verify)
    needed = needed_by(options, lock.config_name)
    return {
        "shared_memory_bytes": needed.need_bytes,
        "shm_size": needed.size,
        "clip_bytes": needed.clip_bytes,
        "places": needed.places,
    }


def parse_options(argv: Sequence[str]) -> tuple[ServeOptions, int | None, bool]:
    """Reads the command line; ends the process with a usage message if it is wrong.

    Returns:
        The options; the file descriptor that is told when the server is ready; and whether only to
        check whether it could start.
    """
    arguments = vars(_parser().parse_args(argv))
    ready_fd, check = arguments.pop("ready_fd"), arguments.pop("check")
    arguments["extra_arguments"] = tuple(arguments["extra_arguments"])
    numbers = {f"{name}_s": arguments.pop(name) for name, _, _ in NUMBERS}
    return ServeOptions(**arguments, **numbers), ready_fd, check


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="reelserve serve", description="Serve a model repository with NVIDIA Triton."
    )
    add = parser.add_argument
    add("--model-repository", type=Path, default=Path("model_repository"), metavar="FOLDER")
    add("--host", default="127.0.0.1", help="address to listen on (%(default)s)")
    for name, port in (("grpc", 8001), ("http", 8000), ("metrics", 8002)):
        help_text = "0 takes a free one (default: %(default)s)"
        add(f"--{name}-port", type=_port, default=port, help=help_text, metavar="PORT")
    add(
        "--gpus", type=gpu_names, default=(), metavar="N,N", help="one Triton on each of these GPUs"
    )
    add_door_arguments(parser)
    add_log_arguments(parser)
    add(
        "--tritonserver",
        type=_binary,
        metavar="BINARY",
        help="NVIDIA's own tritonserver, by path or by its name on PATH, with its own backends "
        "(default: the one that nvidia-pytriton contains)",
    )
    add(
        "--verify",
        action="store_true",
        help="compare every file that Triton may run with its export first",
    )
    add(
        "--single-user",
        action="store_true",
        help="nobody else runs here, as in a pod: take /dev/shm and the temporary folder even if "
        "all may write there",
    )
    add(
        "--check",
        action="store_true",
        help="check the repository, print what it needs of shared memory as JSON, start nothing",
    )
    for name, seconds, text in NUMBERS:
        flag = f"--{name.replace('_', '-')}"
        help_text = f"{text} (%(default)g s)"
        add(flag, type=_seconds, default=seconds, metavar="SECONDS", help=help_text)
    add(
        "--keepalive",
        type=_interval,
        default=KEEPALIVE_S,
        dest="keepalive_s",
        metavar="SECONDS",
        help="interval of pings to a silent caller (%(default)g s)",
    )
    add(
        "--max-connection-age",
        type=_interval,
        dest="max_connection_age_s",
        metavar="SECONDS",
        help="end a caller's connection at this age, after its calls; the next one may reach "
        "another server (default: never)",
    )
    add(
        "--triton-argument",
        action="append",
        default=[],
        dest="extra_arguments",
        metavar="ARGUMENT",
        help="passed to tritonserver as it is; may be given again",
    )
    add("--ready-fd", type=int, metavar="N", help="file descriptor that gets a line of JSON")
    return parser


def _port(text: str) -> int:
    if not text.isdecimal() or int(text) > MAX_PORT:
        raise argparse.ArgumentTypeError(f"port is {text}; the limits are 0 to {MAX_PORT}")
    return int(text)


def _seconds(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = -1.0
    if not 0 < seconds < float("inf"):
        raise argparse.ArgumentTypeError(f"{text} is no number of seconds above 0")
    return seconds


def _interval(text: str) -> float:
    seconds = _seconds(text)
    if not 1 <= seconds <= MAX_INTERVAL_S:
        raise argparse.ArgumentTypeError(
            f"{text} is out of range; the limits are 1 to {MAX_INTERVAL_S} seconds"
        )
    return seconds


def gpu_names(text: str) -> tuple[str, ...]:
    """Reads the value of `--gpus`: different names, with commas."""
    names = tuple(text.split(","))
    if not all(names) or len(set(names)) != len(names):
        raise argparse.ArgumentTypeError(f"{text!r} is no list of different GPUs, as in 0,1")
    return names


def _binary(text: str) -> Path:
    found = shutil.which(text)
    if found is None:
        raise argparse.ArgumentTypeError(f"{text} is no executable on PATH")
    return Path(found)
