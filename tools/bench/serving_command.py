"""Measure cancels, refusals, progress and batching of a server; write docs/results/serving.json."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import itertools
import random
import statistics
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from rich.console import Console

from reelserve.client import (
    Client,
    GenerateOptions,
    InternalError,
    UnavailableError,
)
from reelserve.client.argument_types import whole_number
from reelserve.client.generate_command import add_request_arguments, request_options
from reelserve.loadtest.figures import percentile
from reelserve.pipeline.checkpoint import CheckpointSpec
from reelserve.pipeline.output_place import output_file
from reelserve.pipeline.provenance import provenance
from reelserve.server.launch.running_server import Server
from reelserve.server.launch.tritons import ServeOptions
from reelserve.tools.bench.cancel_latency import (
    DIGITS,
    METHODS,
    all_ways,
    measure_pace,
    measure_way,
)
from reelserve.tools.bench.cpu_command import (
    CONCURRENCY,
    PROMPT,
    described_request,
    throughput,
)
from reelserve.tools.bench.measurement import run_measurement
from reelserve.tools.bench.metrics_poll import MetricsPoll
from reelserve.tools.figures.tables import serving

SHORT: GenerateOptions = {"num_frames": 16, "num_inference_steps": 4}
REFUSALS_PER_ROUND = 100
"""Refusals after which the places are filled anew, long before the first clip could end."""
REFUSAL_PAUSE_S = 0.1
"""Longest pause between two refusals, which spreads them over the steps of the batch."""


def run(argv: list[str]) -> int:
    """Runs `reelserve bench-serving` and returns its exit status."""
    arguments = _parser().parse_args(argv)
    return run_measurement(
        "bench-serving", arguments, measure_serving, lambda results: [f"{serving(results)}\n"]
    )


def measure_serving(arguments: argparse.Namespace, console: Console) -> dict[str, Any]:
    """Starts a server, measures it and stops it.

    Returns:
        The results file.

    Raises:
        ServerError: If the server does not start.
        ReelserveError: If a request fails.
        OSError: If the metrics cannot be read, or a slot does not come free.
    """
    request = request_options(arguments)
    with (
        Server(ServeOptions(arguments.model_repository)) as server,
        Client(server.grpc_url) as client,
        MetricsPoll(server.metrics_url) as poll,
    ):
        url = server.grpc_url
        # Before any clip has ended: from then on a deadline that cannot be met is refused at once.
        cancels = measure_cancels(url, poll, request, arguments.cancels, console)
        gap_s = poll.gap_s()
        console.print("a whole clip")
        stream = measure_stream(client, request)
        video = stream.pop("video")
        console.print("short clips")
        short = measure_short(url, {**request, **SHORT}, arguments.rounds)
        console.print("refusals")
        limits = CheckpointSpec.load(arguments.model_repository / "prompt_processor" / "1").limits
        longest: GenerateOptions = {
            **request,
            "num_inference_steps": limits.num_inference_steps.high,
        }
        refusals = measure_refusals(client, poll, longest, arguments.refusals)
    return {
        "cancels": cancels,
        "poll_s": round(gap_s, DIGITS),
        "refusals": refusals,
        "short_clips": short,
        "stream": stream,
        "request": described_request(PROMPT, video),
        **provenance(),
        "versions": video.info.versions,
    }


def measure_cancels(
    url: str, poll: MetricsPoll, request: GenerateOptions, runs: int, console: Console
) -> list[dict[str, Any]]:
    """Every way to leave a request, see `cancel_latency`."""
    # Twice: the first clip warms the server up.
    _, pace = (measure_pace(url, poll, request) for _ in range(2))
    found = []
    for way in all_ways():
        found.append(measure_way(way, url, poll, request, runs, pace))
        console.print(f"{way.model}, {way.how}: {found[-1]['median_s']:.3f} s")
    return found


def measure_stream(client: Client, request: GenerateOptions) -> dict[str, Any]:
    """How soon and how steadily a stream tells something; `video` is its clip."""
    moments, video = [time.monotonic()], None
    for event in client.stream(PROMPT, **request):
        moments.append(time.monotonic())
        video = event.video
    gaps = [later - earlier for earlier, later in itertools.pairwise(moments)]
    return {
        "first_event_s": round(gaps[0], DIGITS),
        "longest_silence_s": round(max(gaps), DIGITS),
        "events": len(gaps),
        "seconds": round(moments[-1] - moments[0], DIGITS),
        "video": video,
    }


def measure_short(url: str, request: GenerateOptions, rounds: int) -> dict[str, Any]:
    """Short clips one at a time and `CONCURRENCY` at once, as many of both."""
    alone = asyncio.run(throughput(url, PROMPT, request, rounds * CONCURRENCY, callers=1))
    together = asyncio.run(throughput(url, PROMPT, request, rounds))
    return {
        "num_frames": request["num_frames"],
        "num_inference_steps": request["num_inference_steps"],
        "videos_per_s": round(alone, DIGITS),
        "videos_per_s_at_4": round(together, DIGITS),
    }


def measure_refusals(
    client: Client, poll: MetricsPoll, request: GenerateOptions, number: int
) -> list[dict[str, Any]]:
    """Seconds until a server refuses that is full and denoises, `number` times for each call.

    Args:
        client: Client of the server, which nobody else uses.
        poll: Readings of its metrics.
        request: Fills the places: of so many steps that no clip ends during a round.
        number: How many refusals.
    """
    found = []
    for model, method in METHODS.items():
        seconds: list[float] = []
        while len(seconds) < number:
            with _full(client, poll, request):
                count = min(REFUSALS_PER_ROUND, number - len(seconds))
                seconds += [_refusal_s(client, method) for _ in range(count)]
        found.append(
            {
                "model": model,
                "refusals": number,
                "median_s": round(statistics.median(seconds), DIGITS),
                "p99_s": round(percentile(sorted(seconds), 99), DIGITS),
                "max_s": round(max(seconds), DIGITS),
            }
        )
    return found


@contextlib.contextmanager
def _full(client: Client, poll: MetricsPoll, request: GenerateOptions) -> Iterator[None]:
    """A clip in every place while the block runs; all are cancelled at its end."""
    limit = int(poll.until(lambda now: now.idle).limit)
    with contextlib.ExitStack() as streams:
        for seed in range(limit):
            options: GenerateOptions = {**request, "seed": seed}
            streams.enter_context(client.stream(PROMPT, **options))
        poll.until(lambda now: now.in_flight == limit and now.active > 0)
        yield
    poll.until(lambda now: now.idle)


def _refusal_s(client: Client, method: str) -> float:
    """Seconds until a request is refused.

    Raises:
        InternalError: If it is accepted.
    """
    time.sleep(random.uniform(0.0, REFUSAL_PAUSE_S))
    started = time.monotonic()
    try:
        answer = getattr(client, method)(PROMPT)
        if method == "stream":
            with answer:
                next(answer)
    except UnavailableError:
        return time.monotonic() - started
    raise InternalError("a request was accepted by a server that should have been full")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="reelserve bench-serving", description=__doc__)
    add = parser.add_argument
    add("--model-repository", type=Path, default=Path("model_repository"), metavar="FOLDER")
    add("--output", type=output_file, default="docs/results/serving.json", metavar="FILE")
    add("--cancels", type=whole_number(1), default=5, help="of every kind (%(default)s)")
    add("--refusals", type=whole_number(1), default=400, help="of each call (%(default)s)")
    add(
        "--rounds",
        type=whole_number(1),
        default=2,
        help=f"of {CONCURRENCY} short clips (%(default)s)",
    )
    add_request_arguments(parser)
    # Named, since the random points of the cancels depend on the number of steps.
    parser.set_defaults(seed=0, num_frames=80, num_inference_steps=8)
    return parser
