"""Options of `reelserve serve` that say where its log and its traces go."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from reelserve.server.frontend.otlp_endpoint import check_endpoint
from reelserve.server.frontend.service import Service
from reelserve.server.launch.server_log import FORMATS
from reelserve.server.launch.tritons import ServeOptions
from reelserve.server.metric_table import SPANS_DROPPED

if TYPE_CHECKING:
    from reelserve.server.frontend.tracing import Tracing

STANDARD_OUTPUT = Path("/dev/stdout")
LOG_OF_A_TERMINAL = Path("build/triton.log")


def add_log_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the options."""
    group = parser.add_argument_group("log and traces")
    group.add_argument(
        "--log-file",
        type=_file,
        default=usual_log_file(),
        metavar="FILE",
        help="log of the server, its requests and Triton; - is standard output (default: "
        f"{LOG_OF_A_TERMINAL} at a terminal, else -)",
    )
    group.add_argument(
        "--log-format",
        choices=FORMATS,
        default=FORMATS[0],
        help="json: every line is one object (%(default)s)",
    )
    group.add_argument(
        "--log-prompts",
        action="store_true",
        help="prompts come into the log and into traces",
    )
    group.add_argument(
        "--otlp-endpoint",
        type=_endpoint,
        metavar="URL",
        help="OpenTelemetry traces go there by OTLP over gRPC, as http://localhost:4317 (default: "
        "none are made)",
    )


class TracingError(RuntimeError):
    """No traces can be made; the message says what is missing."""


def tracing_of(options: ServeOptions, service: Service) -> Tracing | None:
    """Has the requests of a service traced; None if that is not wanted.

    Raises:
        TracingError: If the library is not installed, or its environment cannot be used.
    """
    if options.otlp_endpoint is None:
        return None
    try:
        from reelserve.server.frontend.tracing import Tracing
    except ModuleNotFoundError as error:
        raise TracingError(
            f"--otlp-endpoint needs the extra `tracing` ({error}); install it with `pip install "
            "'reelserve[tracing]'`"
        ) from None
    try:
        tracing = Tracing(
            options.otlp_endpoint,
            lambda reason, spans: service.recorder.count(SPANS_DROPPED, spans, reason=reason),
        )
    except ValueError as error:
        raise TracingError(f"an OTEL_ variable of the environment is wrong: {error}") from None
    service.requests.tracer = tracing
    return tracing


def usual_log_file() -> Path:
    """Where the log goes when nobody says: standard output, unless a person looks at it."""
    return LOG_OF_A_TERMINAL if sys.stdout.isatty() else STANDARD_OUTPUT


def _file(text: str) -> Path | None:
    if text == "-":
        return STANDARD_OUTPUT
    return Path(text) if text else None


def _endpoint(text: str) -> str:
    try:
        return check_endpoint(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None
