"""The chart's Deployment, really run: by podman, which plays a cluster of one pod."""

from __future__ import annotations

import contextlib
import shutil
import tempfile
from pathlib import Path

import pytest
import yaml

from reelserve.client import Client
from reelserve.server.launch.repository_check import RepositoryError, check_repository
from reelserve.tools.bench.image.containers import (
    Container,
    free_ports,
    port_arguments,
    run_podman,
)
from tests.deploy import bucket
from tests.deploy.chart_tools import CHART, rendered
from tests.deploy.podman import IMAGE
from tests.tool_output import ToolError

pytestmark = [pytest.mark.server, pytest.mark.deploy]
S3 = CHART / "values-s3.yaml"
VALUES = (
    *("--values", str(S3), "--set", "models.fetch.envFrom=null"),
    *("--set", f"server.allowAnonymous=true,image.repository={IMAGE},image.tag=latest"),
    *("--set", f"image.pullPolicy=Never,models.fetch.image={bucket.TAG},sharedMemory=512Mi"),
)
"""Podman takes no Secret as environment, so the keys are added in plain text."""
POD = "clips-reelserve-pod-0"
INIT = "io.podman.annotations.init.container.type"


@pytest.fixture
def buckets(tiny_repository, tmp_path):
    """A folder with the bucket `models`, which holds the repository as `bundled`."""
    # A server that has run over it has left byte code, which counts as files that were added.
    without = shutil.ignore_patterns("__pycache__")
    shutil.copytree(tiny_repository, tmp_path / "buckets" / "models" / "bundled", ignore=without)
    return tmp_path / "buckets"


@pytest.fixture
def store(buckets):
    try:
        with bucket.served(buckets) as port:
            yield port
    except ToolError as error:
        pytest.skip(f"no rclone: {error}")


@pytest.fixture
def deployment(store):
    found = rendered(*VALUES)
    one = next(one for one in found if one["kind"] == "Deployment")
    (init,) = one["spec"]["template"]["spec"]["initContainers"]
    given = {item["name"]: item["value"] for item in init["env"]} | bucket.settings(store)
    init["env"] = [{"name": name, "value": value} for name, value in given.items()]
    return one


@contextlib.contextmanager
def open_folders(*parents):
    """Folders with the mode of a pod's volumes, 0777."""
    with contextlib.ExitStack() as stack:
        folders = [Path(stack.enter_context(tempfile.TemporaryDirectory(dir=p))) for p in parents]
        for folder in folders:
            folder.chmod(0o777)
        yield [str(folder) for folder in folders]


def fit(deployment, volumes, ports):
    """Changes what podman 4.3 cannot do: volumes of any user, and ports of the machine itself."""
    # An init container of the other type is removed while it still runs.
    deployment["metadata"]["annotations"] = {INIT: "always"}
    pod = deployment["spec"]["template"]["spec"]
    (server,) = pod["containers"]
    del server["ports"]
    for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
        del server[probe]
    server["args"] += port_arguments(ports)
    pod["volumes"] = [{"name": name, "hostPath": {"path": path}} for name, path in volumes.items()]


def test_deployment_fetches_its_models_draws_a_clip_and_ends(image, deployment, tmp_path):
    (tmp_path / "rclone").mkdir()
    bucket.build_image(tmp_path / "rclone")
    ports = free_ports(3)
    with open_folders("/dev/shm", None, None) as (shm, tmp, models):
        volumes = {"shm": shm, "tmp": tmp, "models": models}
        fit(deployment, volumes, ports)
        manifest = tmp_path / "deployment.yaml"
        manifest.write_text(yaml.safe_dump(deployment))
        try:
            run_podman("kube", "play", "--network", "host", str(manifest))
            server = Container(f"{POD}-server", *ports)
            server.wait_ready()
            with Client(server.url) as client:
                clip = client.generate("a red star", num_frames=16, num_inference_steps=2)
            assert len(clip.mp4) > 1000
            run_podman("stop", "--time", "60", f"{POD}-server")
            assert list(Path(shm).iterdir()) == list(Path(tmp).iterdir()) == []
        finally:
            run_podman("kube", "down", str(manifest))


def change_a_byte(bundled):
    file = bundled / "denoiser" / "1" / "model.onnx"
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)


DAMAGES = {
    "a byte": (change_a_byte, r"denoiser/1/model\.onnx has changed since it was exported"),
    "a file": (
        lambda bundled: (bundled / "upsampler" / "1" / "model.onnx").unlink(),
        r"upsampler/1/model\.onnx is missing",
    ),
}


@pytest.mark.parametrize(("damage", "said"), DAMAGES.values(), ids=DAMAGES)
def test_what_was_fetched_damaged_is_refused_in_a_line(damage, said, buckets, store, tmp_path):
    damage(buckets / "models" / "bundled")
    fetch = yaml.safe_load(S3.read_text())["models"]["fetch"]
    given = {item["name"]: item["value"] for item in fetch["env"]} | bucket.settings(store)
    arguments = [str(tmp_path / "models") if one == "/models" else one for one in fetch["args"]]
    bucket.fetch(given, arguments)
    with pytest.raises(RepositoryError, match=said) as caught:
        check_repository(tmp_path / "models", verify=True)
    assert "\n" not in str(caught.value)
