"""The server's image: built by podman, run read-only, as nobody and without capabilities."""

from __future__ import annotations

import json
import subprocess

import pytest

from reelserve.client import Client, GenerateOptions
from reelserve.tools.bench.image.containers import (
    KILL_SERVER,
    Container,
    free_ports,
    remove_container,
    run_command,
    run_podman,
    running,
)
from reelserve.tools.bench.image_command import measure_container
from tests.deploy.podman import IMAGE, skip_without_network
from tests.server.launch.test_serving import wait_until

pytestmark = [pytest.mark.server, pytest.mark.deploy]
PROMPT = "a red star"
CLIP: GenerateOptions = {"seed": 1, "num_frames": 16, "num_inference_steps": 2}
SLOW_CLIP: GenerateOptions = {**CLIP, "num_frames": 64, "num_inference_steps": 50}
PORTS = (8001, 8000, 8002)
"""Of clips, probes and metrics, as the image has them."""
STOP_SERVER = KILL_SERVER.replace("SIGKILL", "SIGSTOP")
CONTINUE_SERVER = KILL_SERVER.replace("SIGKILL", "SIGCONT")


def is_healthy(name):
    command = ["podman", "healthcheck", "run", name]
    return subprocess.run(command, capture_output=True).returncode == 0


@pytest.fixture(scope="module")
def container(image, tiny_repository):
    with running(IMAGE, tiny_repository) as one:
        one.wait_ready()
        yield one


@pytest.fixture(scope="module")
def published(image, tiny_repository):
    """A container with a network of its own, whose ports are published on this machine."""
    skip_without_network()
    ports = free_ports(3)
    options = [f"--publish=127.0.0.1:{port}:{PORTS[i]}" for i, port in enumerate(ports)]
    command = run_command(IMAGE, tiny_repository, "bridge", options)
    one = Container(run_podman(*command, "--allow-anonymous"), *ports)
    try:
        one.wait_ready()
        yield one
    finally:
        remove_container(one.name)


def test_image_says_what_it_is_and_runs_as_nobody(image):
    told = json.loads(run_podman("image", "inspect", image))[0]
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
        clips = [client.generate(PROMPT, **CLIP).mp4 for client in (inside, outside)]
    assert clips[0] == clips[1]
    assert "Started GRPCInferenceService" in container.log()


def test_container_has_no_rights_and_writes_nothing_to_its_image(container):
    status = run_podman("exec", container.name, "cat", "/proc/1/status")
    fields = dict(line.split(":\t", 1) for line in status.splitlines())
    assert set(fields["Uid"].split()) == {"65532"} and int(fields["CapBnd"], 16) == 0
    assert fields["NoNewPrivs"] == "1" and fields["Name"] == "tini"
    # Where podman mounts names of hosts.
    changed = run_podman("diff", container.name, "--format", "json")
    assert json.loads(changed) == {"changed": ["/etc"]}


def test_clip_is_drawn_through_a_published_port(published):
    with Client(published.url) as client:
        assert client.generate(PROMPT, **CLIP).mp4


def test_healthcheck_says_whether_it_is_ready(published):
    wait_until(lambda: is_healthy(published.name))
    run_podman("exec", published.name, "python", "-c", STOP_SERVER)
    wait_until(lambda: not is_healthy(published.name))
    run_podman("exec", published.name, "python", "-c", CONTINUE_SERVER)
    wait_until(lambda: is_healthy(published.name))


def test_it_is_back_after_a_kill_and_draws_clips_to_their_end_at_a_stop(image, tiny_repository):
    found = measure_container(IMAGE, tiny_repository, PROMPT, CLIP, SLOW_CLIP)
    assert found["drawn"] == found["in_flight"] > 1 and found["exit_status"] == 0
