"""The server's image: built by podman, run read-only, as nobody and without capabilities."""

from __future__ import annotations

import json
import subprocess
from concurrent.futures import ThreadPoolExecutor

import pytest

from reelserve.client import Client, GenerateOptions
from reelserve.tools.bench.metrics_poll import MetricsPoll
from tests.deploy.podman import (
    podman,
    run_command,
    running,
)
from tests.server.launch.test_serving import wait_until

pytestmark = [pytest.mark.server, pytest.mark.deploy]
CLIP: GenerateOptions = {"seed": 1, "num_frames": 16, "num_inference_steps": 2}
SLOW_CLIP: GenerateOptions = {**CLIP, "num_frames": 64, "num_inference_steps": 50}
PLACES = 12
STOP_S = 120
KILL_SERVER = """
import os, pathlib, signal
children = pathlib.Path("/proc/1/task/1/children").read_text().split()
os.kill(int(children[0]), signal.SIGKILL)
"""
STOP_SERVER = KILL_SERVER.replace("SIGKILL", "SIGSTOP")
"""The child of tini is the server; nobody outside the container is asked for its number."""


def is_healthy(name):
    command = ["podman", "healthcheck", "run", name]
    return subprocess.run(command, capture_output=True).returncode == 0


@pytest.fixture(scope="module")
def container(image, tiny_repository):
    with running(tiny_repository) as one:
        one.wait_ready()
        yield one


def test_image_says_what_it_is_and_runs_as_nobody(image):
    told = json.loads(podman("image", "inspect", image))[0]
    config = told["Config"]
    assert config["User"] == "65532:65532" and config["StopSignal"] == "SIGTERM"
    assert config["Entrypoint"][0] == "tini" and told["Healthcheck"]["Test"]
    labels = {f"org.opencontainers.image.{name}" for name in ("title", "version", "revision")}
    assert (
        labels <= set(config["Labels"])
        and config["Labels"].get("org.opencontainers.image.version") != "0"
    )


def test_clip_is_that_of_a_server_outside(container, tiny_server):
    with Client(container.url) as inside, Client(tiny_server.grpc_url) as outside:
        clips = [client.generate("a red star", **CLIP).mp4 for client in (inside, outside)]
    assert clips[0] == clips[1]
    assert "Started GRPCInferenceService" in container.log()


def test_container_has_no_rights_and_writes_nothing_to_its_image(container):
    status = podman("exec", container.name, "cat", "/proc/1/status")
    fields = dict(line.split(":\t", 1) for line in status.splitlines())
    assert set(fields["Uid"].split()) == {"65532"} and int(fields["CapBnd"], 16) == 0
    assert fields["NoNewPrivs"] == "1" and fields["Name"] == "tini"
    # Where podman mounts names of hosts.
    assert json.loads(podman("diff", container.name, "--format", "json")) == {"changed": ["/etc"]}


def test_healthcheck_says_whether_it_is_ready(image, tiny_repository):
    # A network of its own, in which the ports are those of the image.
    name = podman(*run_command(tiny_repository, "none"), "--allow-anonymous")
    try:
        wait_until(lambda: is_healthy(name))
        podman("exec", name, "python", "-c", STOP_SERVER)
        wait_until(lambda: not is_healthy(name))
    finally:
        podman("rm", "--force", "--time", "0", name)


def test_every_clip_in_flight_at_a_stop_is_drawn_to_its_end(image, tiny_repository):
    with running(tiny_repository) as one, ThreadPoolExecutor(PLACES) as pool:
        one.wait_ready()
        with Client(one.url) as client:
            futures = [
                pool.submit(client.generate, "a red star", **SLOW_CLIP) for _ in range(PLACES)
            ]
            with MetricsPoll(one.metrics_url) as poll:
                poll.until(lambda now: now.in_flight == PLACES)
            podman("stop", "--time", str(STOP_S), one.name)
            assert all(len(future.result(STOP_S).mp4) > 0 for future in futures)
        state = json.loads(podman("inspect", one.name))[0]["State"]
        assert state["ExitCode"] == 0


def test_a_server_that_was_killed_is_back_in_its_container(image, tiny_repository):
    with running(tiny_repository, options=("--restart", "on-failure")) as one:
        one.wait_ready()
        podman("exec", one.name, "python", "-c", KILL_SERVER)
        wait_until(lambda: not one.is_ready())
        one.wait_ready()
        with Client(one.url) as client:
            assert client.generate("a red star", **CLIP).mp4
