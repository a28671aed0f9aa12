"""deploy/compose.yaml: what it says, its server really run, its Prometheus really run."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

import pytest
import yaml

from reelserve.client import Client
from reelserve.server.launch.command import parse_options
from reelserve.tools.bench.image.containers import Container, free_ports, run_podman
from tests.deploy.chart_tools import TOOL_ENVIRONMENT, compose_command, compose_schema
from tests.deploy.podman import IMAGE, ROOT, skip_without_network
from tests.deploy.test_image import CLIP, PROMPT
from tests.server.launch.test_serving import wait_until
from tests.tool_output import ToolError

pytestmark = pytest.mark.deploy
DEPLOY = ROOT / "deploy"
FILE = DEPLOY / "compose.yaml"
VALIDATE = """
import json, sys, jsonschema
schema, file = json.load(sys.stdin)
for error in jsonschema.Draft7Validator(schema).iter_errors(file):
    print(error.json_path, error.message)
"""
PORTS = ("GRPC", "HTTP", "METRICS")
COMPOSE_TIMEOUT_S = 120
SERVER = "reelserve:8002"
"""Target of Prometheus inside of the composed network."""


@pytest.fixture
def services():
    return yaml.safe_load(FILE.read_text())["services"]


def schema_errors(file):
    try:
        schema = compose_schema()
    except ToolError as error:
        pytest.skip(f"no schema: {error}")
    done = subprocess.run(
        [sys.executable, "-c", VALIDATE],
        env={**os.environ, **TOOL_ENVIRONMENT},
        input=json.dumps([schema, file]),
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


def test_file_fits_the_schema_and_a_wrong_word_does_not():
    file = yaml.safe_load(FILE.read_text())
    # The package's schema is of 2021, before a file could have a name.
    del file["name"]
    assert schema_errors(file) == []
    file["services"]["reelserve"]["read-only"] = True
    assert "read-only" in schema_errors(file)[0]


def test_every_service_is_closed_as_far_as_it_can_be(services):
    for service in services.values():
        assert service["read_only"] and service["cap_drop"] == ["ALL"]
        assert service["security_opt"] == ["no-new-privileges:true"]
        assert all(port.startswith("127.0.0.1:") for port in service["ports"])
        assert "privileged" not in service and "network_mode" not in service


def test_images_of_others_have_a_version(services):
    for name in services.keys() - {"reelserve"}:
        assert re.fullmatch(r"docker\.io/[\w/-]+:v?\d+\.\d+\.\d+", services[name]["image"])


def test_server_has_time_to_draw_what_is_in_flight(services):
    options, _, _ = parse_options([])
    grace_s = int(services["reelserve"]["stop_grace_period"].removesuffix("s"))
    assert grace_s >= options.drain_timeout_s + 60


def test_what_is_mounted_is_there(services):
    mounts = [one.split(":") for service in services.values() for one in service["volumes"]]
    files = [here for here, *_ in mounts if here.startswith("./")]
    assert files and all((DEPLOY / here).exists() for here in files)


def test_its_prometheus_differs_from_that_of_this_machine_in_the_target_alone():
    ours, composed = (
        yaml.safe_load((DEPLOY / "prometheus" / name).read_text())
        for name in ("prometheus.yml", "compose.yml")
    )
    target = composed["scrape_configs"][0]["static_configs"][0]
    assert target["targets"] == [SERVER]
    target["targets"] = ["localhost:8002"]
    assert ours == composed


def test_grafana_is_told_of_that_prometheus_and_of_the_dashboard(services):
    provisioning = DEPLOY / "grafana" / "provisioning"
    (source,) = yaml.safe_load((provisioning / "datasources" / "prometheus.yml").read_text())[
        "datasources"
    ]
    assert source["url"] == "http://prometheus:9090" and source["type"] == "prometheus"
    assert services["prometheus"]["ports"] == ["127.0.0.1:9090:9090"]
    interval = yaml.safe_load((DEPLOY / "prometheus" / "compose.yml").read_text())["global"]
    assert source["jsonData"]["timeInterval"] == interval["scrape_interval"]
    (provider,) = yaml.safe_load((provisioning / "dashboards" / "reelserve.yml").read_text())[
        "providers"
    ]
    folder = provider["options"]["path"]
    assert f"./grafana/reelserve.json:{folder}/reelserve.json:ro" in services["grafana"]["volumes"]


@contextlib.contextmanager
def composed(repository):
    """The server, started by podman-compose with ports that are free."""
    ports = free_ports(3)
    settings = {"REELSERVE_IMAGE": IMAGE, "REELSERVE_MODELS": str(repository)}
    settings |= {f"REELSERVE_{name}_PORT": str(ports[i]) for i, name in enumerate(PORTS)}
    environment = {**os.environ, **settings, **TOOL_ENVIRONMENT}
    command = [*compose_command(), "--file", str(FILE), "--project-name", f"test{ports[0]}"]

    def compose(*arguments):
        done = subprocess.run(
            [*command, *arguments],
            env=environment,
            capture_output=True,
            text=True,
            timeout=COMPOSE_TIMEOUT_S,
        )
        assert done.returncode == 0, done.stderr

    try:
        compose("up", "--detach", "--no-build", "reelserve")
        yield Container(f"test{ports[0]}_reelserve_1", *ports)
    finally:
        compose("down")


@pytest.fixture(scope="module")
def server(image, tiny_repository):
    skip_without_network()
    try:
        compose_command()
    except ToolError as error:
        pytest.skip(f"no podman-compose: {error}")
    with composed(tiny_repository) as one:
        one.wait_ready()
        yield one


@pytest.mark.server
def test_composed_server_is_closed_and_draws_a_clip(server):
    with Client(server.url) as client:
        assert client.generate(PROMPT, **CLIP).mp4
    host = json.loads(run_podman("inspect", server.name))[0]["HostConfig"]
    assert host["ReadonlyRootfs"] and host["SecurityOpt"] == ["no-new-privileges"]
    status = run_podman("exec", server.name, "cat", "/proc/1/status")
    assert re.search(r"^CapBnd:\t0+$", status, re.M)


@contextlib.contextmanager
def prometheus(folder: Path, target: str):
    """A Prometheus with the composed configuration, which asks often; the base of its API."""
    shutil.copytree(DEPLOY / "prometheus", folder / "config")
    config = folder / "config" / "compose.yml"
    text = config.read_text().replace(SERVER, target)
    config.write_text(text.replace("_interval: 15s", "_interval: 1s"))
    (port,) = free_ports(1)
    options = (f"--config.file={config}", f"--storage.tsdb.path={folder / 'data'}")
    with (folder / "log").open("w") as log:
        process = subprocess.Popen(
            ["prometheus", *options, f"--web.listen-address=127.0.0.1:{port}"],
            stdout=log,
            stderr=log,
        )
        try:
            yield f"http://127.0.0.1:{port}/api/v1"
        finally:
            process.terminate()
            process.wait(COMPOSE_TIMEOUT_S)


def told(url: str):
    try:
        with urllib.request.urlopen(url, timeout=10) as reply:
            return json.load(reply)["data"]
    except (urllib.error.URLError, OSError):
        return {}


@pytest.mark.server
def test_prometheus_scrapes_the_server_and_evaluates_every_alert(server, tmp_path):
    if shutil.which("prometheus") is None:
        pytest.skip("Prometheus is not installed")
    written = yaml.safe_load((DEPLOY / "prometheus" / "alerts.yml").read_text())["groups"]
    names = {rule["alert"] for group in written for rule in group["rules"]}
    with prometheus(tmp_path, f"127.0.0.1:{server.metrics}") as api:
        wait_until(
            lambda: (
                [one["health"] for one in told(f"{api}/targets").get("activeTargets", [])] == ["up"]
            )
        )

        def evaluated():
            groups = told(f"{api}/rules").get("groups", [])
            rules = [rule for group in groups for rule in group["rules"]]
            return {rule["name"] for rule in rules if rule["health"] == "ok"}

        deadline = time.monotonic() + COMPOSE_TIMEOUT_S
        while evaluated() != names:
            assert time.monotonic() < deadline, names - evaluated()
            time.sleep(0.2)
        assert told(f"{api}/query?query=reelserve_max_requests_in_flight")["result"]
