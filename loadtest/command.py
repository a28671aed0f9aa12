"""Load a server with Locust, judge it against a goal and write a report."""

from __future__ import annotations

import argparse
import contextlib
import importlib.util
import json
import shlex
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path
from typing import Any

from reelserve.client import Client, InvalidArgumentError, ReelserveError, Video
from reelserve.client.cli import FAILURE, OK, USAGE, error_console
from reelserve.client.generate_command import request_options
from reelserve.loadtest.arguments import parse_arguments
from reelserve.loadtest.plan import Plan, request_name
from reelserve.loadtest.records import Measurement
from reelserve.loadtest.results import Outcome, as_json, outcome, write_csv
from reelserve.loadtest.verdict import Goals
from reelserve.pipeline.atomic_file import write_file
from reelserve.pipeline.extras import install_advice
from reelserve.pipeline.provenance import provenance
from reelserve.server.launch.installation import InstallationError
from reelserve.server.launch.running_server import Server
from reelserve.server.launch.triton_process import ServerError
from reelserve.server.launch.tritons import ServeOptions

NEEDED = ("locust", "matplotlib", "jinja2")
MODEL = "text_to_video"


class LoadError(RuntimeError):
    """The process that makes the load failed."""


def run(argv: list[str]) -> int:
    """Runs `reelserve loadtest` and returns its exit status."""
    arguments = parse_arguments(argv, __doc__)
    console = error_console()
    missing = [name for name in NEEDED if importlib.util.find_spec(name) is None]
    if missing:
        console.print(
            f"reelserve loadtest: {missing[0]} is not installed; "
            f"it comes with {install_advice(missing[0], 'loadtest')}"
        )
        return FAILURE
    command = shlex.join(["reelserve", "loadtest", *argv])
    try:
        found = measure(arguments, command)
        _write(found, arguments)
    except InvalidArgumentError as error:
        console.print(f"reelserve loadtest: {error}")
        return USAGE
    except (
        InstallationError,
        ServerError,
        ReelserveError,
        LoadError,
        ValueError,
        OSError,
    ) as error:
        console.print(f"reelserve loadtest: {error}")
        return FAILURE
    for finding in found.verdict.findings:
        console.print(f"{'pass' if finding.passed else 'FAIL'}: {finding.sentence}")
    for sentence in found.verdict.reached:
        console.print(f"      {sentence}")
    console.print(f"report: {arguments.output_dir / 'report.html'}")
    return OK if found.verdict.passed else FAILURE


def measure(arguments: argparse.Namespace, command: str) -> Outcome:
    """Runs a load test on the server of `--url`, or on one that it starts and stops.

    Args:
        arguments: What `parse_arguments` gave.
        command: As it was typed, for the report.

    Raises:
        ServerError: If the server does not start.
        ReelserveError: If the first request fails; later failures are counted.
        LoadError: If the load could not be made.
        ValueError: If nothing was measured.
    """
    console = error_console()
    with _server(arguments) as (url, server):
        console.print(f"one clip to warm up and to see its shape, from {server}")
        video = _first_clip(url, arguments)
        plan = _plan(arguments, url, video)
        measurement = make_load(plan)
    origin = _origin(arguments, server, command)
    goals = Goals(arguments.goal_videos_per_s, arguments.goal_p95_s, arguments.max_error_share)
    return outcome(plan, measurement, goals, video.info, arguments.gpus, origin)


@contextlib.contextmanager
def _server(arguments: argparse.Namespace) -> Iterator[tuple[str, str]]:
    """Gives the address of a server and what it is called in the report."""
    if arguments.url is not None:
        yield arguments.url, arguments.url
        return
    with Server(ServeOptions(arguments.model_repository)) as server:
        yield server.grpc_url, f"a server over {arguments.model_repository}"


def _first_clip(url: str, arguments: argparse.Namespace) -> Video:
    prompt = arguments.sentences[0]
    with Client(url) as client:
        return client.generate(prompt, **{**request_options(arguments), "seed": arguments.seed})


def _plan(arguments: argparse.Namespace, url: str, video: Video) -> Plan:
    request = {
        name: value
        for name, value in request_options(arguments).items()
        if value is not None and name != "seed"
    }
    return Plan(
        url=url,
        name=request_name(MODEL, video.info),
        loop=arguments.loop,
        levels=arguments.levels,
        prompts=arguments.sentences,
        request=request,
        seed=arguments.seed,
        warm_up_clips=arguments.warm_up,
        warm_up_s=arguments.warm_up_seconds,
        clips=arguments.clips,
        rounds=arguments.rounds,
        level_s=arguments.level_seconds,
        ramp_s=arguments.ramp,
        max_level_s=arguments.max_level_seconds,
    )


def make_load(plan: Plan) -> Measurement:
    """Runs the plan in a process of its own, since Locust changes the one that it is in.

    Raises:
        LoadError: If that process fails.
    """
    with tempfile.TemporaryDirectory(prefix="reelserve-loadtest-") as folder:
        plan_file, measurement_file = Path(folder, "plan.json"), Path(folder, "measurement.json")
        plan_file.write_text(plan.to_json())
        files = (str(plan_file), str(measurement_file))
        ended = subprocess.run([sys.executable, "-m", "reelserve.loadtest", *files], check=False)
        if ended.returncode != 0 or not measurement_file.exists():
            raise LoadError(f"the load generator ended with status {ended.returncode}")
        return Measurement.from_json(measurement_file.read_text())


def _origin(arguments: argparse.Namespace, server: str, command: str) -> dict[str, Any]:
    here = provenance()
    local = f"{here['cpu']}, {here['cores']} cores"
    unknown = "hardware of the server not stated"
    return {
        "hardware": arguments.hardware or (local if arguments.url is None else unknown),
        "server": server,
        "command": command,
        "locust": metadata.version("locust"),
        **here,
    }


def _write(found: Outcome, arguments: argparse.Namespace) -> None:
    # Here, because matplotlib takes a second to import, which `--help` need not wait for.
    from reelserve.loadtest.plots import save_png
    from reelserve.loadtest.report import html, sweep_figure

    folder: Path = arguments.output_dir
    write_csv(found, folder)
    results = json.dumps(as_json(found), indent=2, ensure_ascii=False) + "\n"
    for file in (folder / "loadtest.json", arguments.json):
        if file is not None:
            write_file(file, results)
    for file in (folder / "sweep.png", arguments.plot):
        if file is not None:
            save_png(sweep_figure(found), file)
    write_file(folder / "report.html", html(found))
