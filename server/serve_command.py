"""Serve a model repository with NVIDIA Triton in the foreground until Ctrl-C."""

from __future__ import annotations

import argparse
import shutil
import signal
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

from rich.console import Console

from reelserve.server.installation import InstallationError
from reelserve.server.launcher import ServerError, ServerOptions, TritonServer

MAX_PORT = 65535


def run(argv: Sequence[str]) -> int:
    """Runs the command.

    Args:
        argv: Arguments after the command's name.

    Returns:
        Exit status: 0 if it was told to end, 1 if the server failed.
    """
    options = parse_options(argv)
    console = Console(stderr=True)
    # SIGINT too: a shell starts a background job with it ignored.
    with _interrupted_by(signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        try:
            with TritonServer(options) as server:
                console.out(
                    f"ready after {server.ready_s:.1f} s: gRPC {server.grpc_url}, "
                    f"HTTP {server.http_url}, metrics {server.metrics_url}; Ctrl-C ends it",
                    highlight=False,
                )
                status = server.wait()
                console.out(
                    f"Triton ended with status {status}\n{server.errors()}", highlight=False
                )
                return 1
        except KeyboardInterrupt:
            return 0
        except (ServerError, InstallationError) as error:
            console.out(str(error), highlight=False)
            return 1


def parse_options(argv: Sequence[str]) -> ServerOptions:
    """Reads the command line; ends the process with a usage message if it is wrong."""
    parser = argparse.ArgumentParser(
        prog="reelserve serve", description="Serve a model repository with NVIDIA Triton."
    )
    parser.add_argument("--model-repository", type=Path, default=Path("model_repository"))
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on")
    for name, port in (("grpc", 8001), ("http", 8000), ("metrics", 8002)):
        parser.add_argument(
            f"--{name}-port",
            type=_port,
            default=port,
            help="0 takes a free one (default: %(default)s)",
        )
    parser.add_argument("--log-file", type=Path, default=Path("build/triton.log"))
    parser.add_argument(
        "--tritonserver",
        type=_binary,
        metavar="BINARY",
        help="NVIDIA's own tritonserver, by path or by its name on PATH, with its own backends "
        "(default: the one that nvidia-pytriton contains)",
    )
    parser.add_argument(
        "--verify",
        action="store_true",
        help="read every exported file and compare it with the hash of its export first",
    )
    parser.add_argument("--ready-timeout", type=float, default=120.0, metavar="SECONDS")
    arguments = parser.parse_args(argv)
    return ServerOptions(
        model_repository=arguments.model_repository,
        host=arguments.host,
        grpc_port=arguments.grpc_port or None,
        http_port=arguments.http_port or None,
        metrics_port=arguments.metrics_port or None,
        tritonserver=arguments.tritonserver,
        log_file=arguments.log_file,
        ready_timeout_s=arguments.ready_timeout,
        verify=arguments.verify,
    )


def _port(text: str) -> int:
    if not text.isdecimal() or int(text) > MAX_PORT:
        raise argparse.ArgumentTypeError(f"port is {text}; the limits are 0 to {MAX_PORT}")
    return int(text)


def _binary(text: str) -> Path:
    found = shutil.which(text)
    if found is None:
        raise argparse.ArgumentTypeError(f"{text} is no executable on PATH")
    return Path(found)


@contextmanager
def _interrupted_by(*signals: signal.Signals) -> Iterator[None]:
    """Lets `signals` end the block by `KeyboardInterrupt`."""

    def interrupt(number: int, frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    before = {number: signal.signal(number, interrupt) for number in signals}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
