"""The chart's Deployment, really run: by podman, which plays a cluster of one pod."""

from __future__ import annotations

import contextlib
import tempfile
from pathlib import Path

import pytest
import yaml

from reelserve.client import Client
from reelserve.tools.bench.image.containers import (
    Container,
    free_ports,
    port_arguments,
    run_podman,
)
from tests.deploy.chart_tools import rendered
from tests.deploy.podman import IMAGE
from tests.tool_output import ToolError

pytestmark = [pytest.mark.server, pytest.mark.deploy]
MODELS = "localhost/reelserve-test-models"
CONTAINERFILE = f"FROM {IMAGE}\nCOPY . /models\n"
VALUES = (
    *("--set", f"server.allowAnonymous=true,models.inImage=true,image.repository={MODELS}"),
    *("--set", "image.tag=latest,image.pullPolicy=Never,sharedMemory=512Mi"),
)
POD = "clips-reelserve-pod-0"


@pytest.fixture
def deployment():
    try:
        found = rendered(*VALUES)
    except ToolError as error:
        pytest.skip(f"no helm: {error}")
    return next(one for one in found if one["kind"] == "Deployment")


@pytest.fixture
def models(image, tiny_repository, tmp_path):
    """An image that holds a model repository."""
    file = tmp_path / "Containerfile"
    file.write_text(CONTAINERFILE)
    run_podman("build", "--quiet", "--tag", MODELS, "--file", str(file), str(tiny_repository))


@contextlib.contextmanager
def open_folders(*parents):
    """Folders with the mode of a pod's volumes, 0777."""
    with contextlib.ExitStack() as stack:
        folders = [Path(stack.enter_context(tempfile.TemporaryDirectory(dir=p))) for p in parents]
        for folder in folders:
            folder.chmod(0o777)
        yield [str(folder) for folder in folders]


def fit(pod, shm, tmp, ports):
    """Changes what podman 4.3 cannot do: volumes of any user, and ports of the machine itself."""
    (server,) = pod["containers"]
    del server["ports"]
    for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
        del server[probe]
    server["args"] += port_arguments(ports)
    pod["volumes"] = [
        {"name": "shm", "hostPath": {"path": shm}},
        {"name": "tmp", "hostPath": {"path": tmp}},
    ]


def test_deployment_draws_a_clip_and_ends(deployment, models, tmp_path):
    ports = free_ports(3)
    with open_folders("/dev/shm", None) as (shm, tmp):
        fit(deployment["spec"]["template"]["spec"], shm, tmp, ports)
        manifest = tmp_path / "deployment.yaml"
        manifest.write_text(yaml.safe_dump(deployment))
        run_podman("kube", "play", "--network", "host", str(manifest))
        try:
            server = Container(f"{POD}-server", *ports)
            server.wait_ready()
            with Client(server.url) as client:
                clip = client.generate("a red star", num_frames=16, num_inference_steps=2)
            assert len(clip.mp4) > 1000
            run_podman("stop", "--time", "60", f"{POD}-server")
            assert list(Path(shm).iterdir()) == list(Path(tmp).iterdir()) == []
        finally:
            run_podman("kube", "down", str(manifest))
