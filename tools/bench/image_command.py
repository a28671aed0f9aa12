"""Build the image, run it in a container and under systemd; write docs/results/image.json."""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from rich.console import Console

from reelserve.client import Client, GenerateOptions
from reelserve.client.argument_types import whole_number
from reelserve.client.generate_command import add_request_arguments, request_options
from reelserve.pipeline.output_place import output_file
from reelserve.pipeline.provenance import provenance
from reelserve.server.launch.shared_memory import shared_memory_need
from reelserve.tools.bench.cpu_command import DIGITS, PROMPT, described_request
from reelserve.tools.bench.image import unit as systemd
from reelserve.tools.bench.image.containers import Container, run_podman, run_tool, running
from reelserve.tools.bench.measurement import Measured, run_measurement
from reelserve.tools.bench.metrics_poll import MetricsPoll
from reelserve.tools.bench.serving_command import SHORT
from reelserve.tools.figures.deploying import image

BUILD_TIMEOUT_S = 1800.0
RESTART = ("--restart", "on-failure")
STOP_S = 400
"""Patience with an end, above the drain's 300 s."""


def run(argv: list[str]) -> int:
    """Runs `reelserve bench-image` and returns its exit status."""
    return run_measurement(
        "bench-image", _parser().parse_args(argv), measure_image, lambda results: [image(results)]
    )


def measure_image(arguments: argparse.Namespace, console: Console) -> Measured:
    """Builds the image, and starts, kills and stops its server.

    Returns:
        The results file; lists of seconds have one entry a round.

    Raises:
        ServerError: If podman fails, or a server does not start.
        ReelserveError: If a clip is not drawn.
        OSError: If the metrics cannot be read.
    """
    request, rounds = request_options(arguments), range(1, arguments.rounds + 1)
    built = _built(arguments.image, console) if arguments.build else {}
    place = (arguments.image, arguments.model_repository)
    found: dict[str, list[Measured]] = {"container": [], "systemd": []}
    for number in rounds:
        found["container"].append(measure_container(*place, arguments.prompt, request))
        console.print(f"container, round {number} of {arguments.rounds}")
    with systemd.booted(*place) as unit:
        for number in rounds:
            found["systemd"].append(measure_unit(unit, arguments.prompt, request))
            console.print(f"systemd unit, round {number} of {arguments.rounds}")
        versions = systemd.versions(unit)
    video, *_ = [one.pop("video") for lives in found.values() for one in lives]
    return {
        **_sizes(arguments.image),
        **built,
        "shm_bytes": shared_memory_need(arguments.model_repository).need_bytes,
        **found,
        "request": described_request(arguments.prompt, video),
        **provenance(),
        "versions": {**video.info.versions, **versions},
    }


def measure_container(
    tag: str,
    repository: Path,
    prompt: str,
    request: GenerateOptions,
    at_stop: GenerateOptions = SHORT,
) -> Measured:
    """A read-only container without rights: its start, its end by a kill, its end by a stop.

    Args:
        tag: The image's name.
        repository: Model repository on this machine.
        prompt: The prompt of every clip.
        request: Other fields.
        at_stop: Those of the clips that are in flight when it is stopped.

    Returns:
        Seconds, clips in flight at the stop and how many of them were drawn, and a `video`.
    """
    began = time.monotonic()
    with running(tag, repository, options=RESTART) as container:

        def stop() -> int:
            run_podman("stop", "--time", str(STOP_S), container.name, timeout_s=STOP_S)
            state = "{{.State.ExitCode}}"
            return int(run_podman("inspect", "--format", state, container.name))

        return _life(container, began, stop, prompt, request, at_stop)


def measure_unit(
    unit: systemd.Unit, prompt: str, request: GenerateOptions, at_stop: GenerateOptions = SHORT
) -> Measured:
    """The systemd unit, likewise; it may run already."""

    def stop() -> int:
        unit.systemctl("stop", systemd.UNIT)
        return int(unit.property("ExecMainStatus"))

    began = time.monotonic()
    unit.systemctl("start", systemd.UNIT)
    return _life(unit, began, stop, prompt, request, at_stop)


def _life(
    place: Container,
    began: float,
    stop: Callable[[], int],
    prompt: str,
    request: GenerateOptions,
    at_stop: GenerateOptions,
) -> Measured:
    """Waits for a server that is starting, draws, kills it, fills it and stops it."""
    with Client(place.url) as client:
        place.wait_ready()
        ready_s = time.monotonic() - began
        video = client.generate(prompt, **request)
        first_clip_s = time.monotonic() - began
        killed = time.monotonic()
        place.kill_server()
        place.wait_gone()
        place.wait_ready()
        recovered_s = time.monotonic() - killed
        client.generate(prompt, **request)
        clip_after_kill_s = time.monotonic() - killed
        return {
            "ready_s": round(ready_s, DIGITS),
            "first_clip_s": round(first_clip_s, DIGITS),
            "recovered_s": round(recovered_s, DIGITS),
            "clip_after_kill_s": round(clip_after_kill_s, DIGITS),
            **_drained(place, client, stop, prompt, {**request, **at_stop}),
            "video": video,
        }


def _drained(
    place: Container,
    client: Client,
    stop: Callable[[], int],
    prompt: str,
    request: GenerateOptions,
) -> dict[str, Any]:
    """Stops a server with a clip in every place, all of which must be drawn."""
    with MetricsPoll(place.metrics_url) as poll:
        places = int(poll.read().limit)
        with ThreadPoolExecutor(places) as pool:
            clips = [pool.submit(client.generate, prompt, **request) for _ in range(places)]
            poll.until(lambda now: now.in_flight == places)
            began = time.monotonic()
            status = stop()
            stopped_s = time.monotonic() - began
            drawn = sum(len(clip.result().mp4) > 0 for clip in clips)
    return {
        "in_flight": places,
        "drawn": drawn,
        "stopped_s": round(stopped_s, DIGITS),
        "exit_status": status,
    }


def _built(tag: str, console: Console) -> dict[str, float]:
    """Builds the image with nothing left from an earlier build."""
    console.print("building the image")
    began = time.monotonic()
    run_tool(("deploy/build-image", tag, "--fresh"), BUILD_TIMEOUT_S)
    return {"build_s": round(time.monotonic() - began, DIGITS)}


def _sizes(tag: str) -> dict[str, int]:
    """Bytes of the image and of the Debian under it."""
    names = {"image_bytes": tag, "base_bytes": systemd.BASE}
    ask = ("image", "inspect", "--format", "{{.Size}}")
    return {name: int(run_podman(*ask, one)) for name, one in names.items()}


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="reelserve bench-image", description=__doc__)
    add = parser.add_argument
    add("--prompt", default=PROMPT, help="a sentence (%(default)s)")
    add("--model-repository", type=Path, default=Path("model_repository"), metavar="FOLDER")
    add("--output", type=output_file, default="docs/results/image.json", metavar="FILE")
    add("--image", default="localhost/reelserve", help="its name (%(default)s)")
    add("--no-build", dest="build", action="store_false", help="take the image that is there")
    add("--rounds", type=whole_number(1), default=3, help="starts, kills and stops (%(default)s)")
    add_request_arguments(parser)
    parser.set_defaults(seed=0)
    return parser
