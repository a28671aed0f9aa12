"""Measure a running server on this machine's processor and write docs/results/bench_cpu.json."""

from __future__ import annotations

import argparse
import asyncio
import os
import statistics
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console, RenderableType

from reelserve.client import AsyncClient, Client, GenerateOptions, Video
from reelserve.client.argument_types import whole_number
from reelserve.client.generate_command import add_request_arguments, request_options
from reelserve.pipeline.output_place import output_file
from reelserve.pipeline.provenance import provenance
from reelserve.server.launch.running_server import Server
from reelserve.server.launch.tritons import ServeOptions
from reelserve.tools.bench.measurement import Measured, run_measurement
from reelserve.tools.bench.process_memory import MemoryTrace
from reelserve.tools.bench.stage_times import settled_statistics, stage_seconds, stage_table

PROMPT = "a large yellow star spins on a starry night"
CONCURRENCY = 4
DIGITS = 4


@dataclass(frozen=True)
class TimedClip:
    """One measured clip."""

    seconds: float
    stages_s: dict[str, float]
    video: Video


def run(argv: list[str]) -> int:
    """Runs `reelserve bench-cpu` and returns its exit status."""
    return run_measurement("bench-cpu", _parser().parse_args(argv), measure_cpu, _summary)


def _summary(results: Measured) -> list[RenderableType]:
    return [
        stage_table(results["stages_s"], results["seconds_per_clip"]),
        f"{results['videos_per_s']:.3f} video/s one at a time, "
        f"{results['videos_per_s_at_4']:.3f} with {CONCURRENCY} at once, "
        f"ready in {results['ready_s']:.1f} s, "
        f"peak {results['peak_memory_bytes'] / 2**30:.2f} GiB",
    ]


def measure_cpu(arguments: argparse.Namespace, console: Console) -> dict[str, Any]:
    """Starts a server, measures it and stops it.

    Returns:
        The results file. `stages_s` are means over the clips drawn one at a time; the other
        seconds are medians.

    Raises:
        ServerError: If the server does not start.
        ReelserveError: If a request fails.
    """
    request = request_options(arguments)
    with (
        MemoryTrace(os.getpid(), with_root=False) as memory,
        Server(ServeOptions(arguments.model_repository)) as server,
        Client(server.grpc_url) as client,
    ):
        console.print(f"ready after {server.ready_s:.1f} s; warming up")
        draw_timed(client, arguments.prompt, request)
        clips = []
        for number in range(1, arguments.clips + 1):
            clips.append(draw_timed(client, arguments.prompt, request))
            console.print(f"clip {number} of {arguments.clips}: {clips[-1].seconds:.2f} s")
        videos_per_s_at_4 = asyncio.run(
            throughput(server.grpc_url, arguments.prompt, request, arguments.rounds)
        )
    seconds = statistics.median(clip.seconds for clip in clips)
    return {
        "seconds_per_clip": round(seconds, DIGITS),
        "videos_per_s": round(1 / seconds, DIGITS),
        "videos_per_s_at_4": round(videos_per_s_at_4, DIGITS),
        "stages_s": {
            stage: round(statistics.fmean(clip.stages_s[stage] for clip in clips), DIGITS)
            for stage in clips[0].stages_s
        },
        "ready_s": round(server.ready_s, DIGITS),
        "peak_memory_bytes": memory.peak_bytes,
        "clips_s": [round(clip.seconds, DIGITS) for clip in clips],
        "request": described_request(arguments.prompt, clips[0].video),
        **provenance(),
        "versions": clips[0].video.info.versions,
    }


def draw_timed(client: Client, prompt: str, request: GenerateOptions) -> TimedClip:
    """Draws one clip and takes its times; nothing else may use the server."""
    before = client.statistics()
    started = time.monotonic()
    video = client.generate(prompt, **request)
    seconds = time.monotonic() - started
    after = settled_statistics(client, before)
    stages_s = stage_seconds(before, after, video.info.seconds["video_diffusion"])
    return TimedClip(seconds, stages_s, video)


async def throughput(
    url: str, prompt: str, request: GenerateOptions, rounds: int, callers: int = CONCURRENCY
) -> float:
    """Videos per second of callers, each of which sends a request when its last one is done.

    Args:
        url: `host:port` of the server.
        prompt: Prompt of every clip; seeds differ.
        request: Other fields.
        rounds: Clips of each caller.
        callers: At once.
    """

    async def call(client: AsyncClient, caller: int) -> None:
        options = request.copy()
        for number in range(rounds):
            options["seed"] = caller * rounds + number
            await client.generate(prompt, **options)

    started = time.monotonic()
    async with AsyncClient(url) as client:
        await asyncio.gather(*(call(client, caller) for caller in range(callers)))
    return callers * rounds / (time.monotonic() - started)


def described_request(prompt: str, video: Video) -> dict[str, Any]:
    """What was asked for and what served it, for a results file."""
    names = ("seed", "num_inference_steps", "guidance_scale", "num_frames", "fps")
    shape = ("height", "width", "checkpoint", "engine")
    return {"prompt": prompt, **{name: getattr(video.info, name) for name in (*names, *shape)}}


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="reelserve bench-cpu", description=__doc__)
    parser.add_argument("--prompt", default=PROMPT, help="a sentence (%(default)s)")
    parser.add_argument(
        "--model-repository", type=Path, default=Path("model_repository"), metavar="FOLDER"
    )
    parser.add_argument(
        "--output", type=output_file, default="docs/results/bench_cpu.json", metavar="FILE"
    )
    parser.add_argument(
        "--clips", type=whole_number(1), default=5, help="one at a time (%(default)s)"
    )
    parser.add_argument(
        "--rounds",
        type=whole_number(1),
        default=2,
        help=f"clips for each of {CONCURRENCY} callers at once (%(default)s)",
    )
    add_request_arguments(parser)
    parser.set_defaults(seed=0)
    return parser
