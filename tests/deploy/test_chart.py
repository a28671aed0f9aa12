"""The Helm chart: what it renders, what Kubernetes' schemas say, what it refuses."""

from __future__ import annotations

import copy
import json
import re
from pathlib import Path

import pytest
import yaml

import reelserve
from reelserve.server.launch.command import parse_options
from reelserve.server.launch.triton_process import KILL_AFTER_S
from tests.deploy.chart_tools import (
    CHART,
    KUBERNETES,
    crd_errors,
    helm,
    rendered,
    schema_errors,
)
from tests.deploy.chart_ways import (
    ANONYMOUS,
    CLOSED,
    FETCHED,
    GOLDEN,
    IN_IMAGE,
    LEAST,
    READ,
    TRACED,
    WAYS,
)
from tests.deploy.pod_security import breaches
from tests.tool_output import ToolError

pytestmark = pytest.mark.deploy

CRDS = {"ScaledObject", "ServiceMonitor", "PrometheusRule"}


@pytest.fixture(autouse=True, scope="module")
def tools():
    try:
        helm("version")
    except ToolError as error:
        pytest.skip(f"no helm: {error}")


def manifest(found, kind, name="clips-reelserve"):
    (one,) = [m for m in found if m["kind"] == kind and m["metadata"]["name"] == name]
    return one


def server(found):
    return manifest(found, "Deployment")["spec"]["template"]["spec"]


@pytest.mark.parametrize("way", WAYS)
def test_helm_lint_finds_nothing(way):
    said = helm("lint", "--strict", str(CHART), *WAYS[way])
    assert "[WARNING]" not in said and "0 chart(s) failed" in said


@pytest.mark.parametrize("way", WAYS)
def test_manifests_fit_the_schemas_of_kubernetes(way, tmp_path):
    found = [one for one in rendered(*WAYS[way]) if one["kind"] not in CRDS]
    assert schema_errors(found, tmp_path / "manifests.yaml") == []


def test_schemas_refuse_what_is_no_field(tmp_path):
    found = copy.deepcopy(manifest(rendered(*LEAST), "Deployment"))
    found["spec"]["template"]["spec"]["containers"][0]["redinessProbe"] = {}
    errors = schema_errors([found], tmp_path / "manifests.yaml")
    assert len(errors) == len(KUBERNETES) and all("redinessProbe" in error for error in errors)


def test_resources_of_operators_fit_their_schemas():
    found = [one for one in rendered(*WAYS["keda"]) if one["kind"] in CRDS]
    assert {one["kind"] for one in found} == CRDS
    assert crd_errors(found) == [""] * len(CRDS)
    damaged = copy.deepcopy(found)
    for one in damaged:
        one["spec"] = {"groups": 1}
    assert all(crd_errors(damaged))


@pytest.mark.parametrize("way", WAYS)
def test_pods_keep_to_the_restricted_standard(way):
    found = rendered(*WAYS[way])
    pods = [one["spec"] for one in found if one["kind"] == "Pod"] + [server(found)]
    for spec in pods:
        assert list(breaches(spec)) == []
        assert spec["automountServiceAccountToken"] is False
        for container in (*spec.get("initContainers", []), *spec["containers"]):
            assert container["securityContext"]["readOnlyRootFilesystem"] is True


def test_a_breach_of_the_standard_is_found():
    spec = copy.deepcopy(server(rendered(*LEAST)))
    spec["containers"][0]["securityContext"]["capabilities"]["add"] = ["SYS_ADMIN"]
    spec["volumes"].append({"name": "host", "hostPath": {"path": "/"}})
    spec["securityContext"]["runAsUser"] = 0
    assert sorted(breaches(spec)) == [
        "server: capabilities",
        "server: may run as root",
        "volume host: hostPath",
    ]


@pytest.mark.parametrize("way", READ)
def test_manifests_are_those_that_were_read(way):
    assert yaml.safe_dump_all(rendered(*WAYS[way])) == (GOLDEN / f"{way}.yaml").read_text()


@pytest.mark.parametrize("way", WAYS)
def test_server_takes_the_arguments_of_the_pod(way):
    arguments = server(rendered(*WAYS[way]))["containers"][0]["args"]
    options, _, _ = parse_options(arguments)
    assert options.verify and options.drain_timeout_s >= 300


@pytest.mark.parametrize("way", ["least", "cpu", "h100"])
def test_a_pod_is_killed_later_than_its_drain_ends(way):
    spec = server(rendered(*WAYS[way]))
    options, _, _ = parse_options(spec["containers"][0]["args"])
    pause = float(spec["containers"][0]["lifecycle"]["preStop"]["exec"]["command"][-1])
    least = pause + options.drain_timeout_s + KILL_AFTER_S
    assert spec["terminationGracePeriodSeconds"] >= least
    probe = spec["containers"][0]["startupProbe"]
    assert probe["periodSeconds"] * probe["failureThreshold"] > options.ready_timeout_s


def test_files_of_secrets_are_where_the_arguments_say():
    spec = server(rendered(*CLOSED))
    options, _, _ = parse_options(spec["containers"][0]["args"])
    mounts = {one["mountPath"]: one for one in spec["containers"][0]["volumeMounts"]}
    for file in (options.api_keys, options.tls_cert, options.tls_key, options.tls_client_ca):
        assert mounts[str(Path(file).parent)]["readOnly"]
    assert mounts["/models"]["subPath"] == "bundled"


def test_gpus_are_asked_for_and_used():
    container = server(rendered(*WAYS["keda"]))["containers"][0]
    assert container["resources"]["limits"]["nvidia.com/gpu"] == 2
    assert parse_options(container["args"])[0].gpus == ("0", "1")


def test_egress_leads_to_the_collector_of_traces_alone():
    documents = rendered(*TRACED)
    arguments = server(documents)["containers"][0]["args"]
    assert parse_options(arguments)[0].otlp_endpoint == "http://otel-collector.observability:14317"
    traces, names = manifest(documents, "NetworkPolicy")["spec"]["egress"]
    assert traces == {
        "ports": [{"port": 14317}],
        "to": [{"namespaceSelector": {"matchLabels": {"name": "observability"}}}],
    }
    assert {port["port"] for port in names["ports"]} == {53}

    usual = rendered(*LEAST, "--set", "server.otlpEndpoint=https://collector")
    assert manifest(usual, "NetworkPolicy")["spec"]["egress"][0] == {"ports": [{"port": 4317}]}


def test_the_log_of_a_pod_is_json_on_standard_output():
    arguments = server(rendered(*LEAST))["containers"][0]["args"]
    assert parse_options(arguments)[0].log_format == "json"
    chosen = rendered(*LEAST, "--set", "server.logFormat=text,server.logPrompts=true")
    options = parse_options(server(chosen)["containers"][0]["args"])[0]
    assert options.log_format == "text" and options.log_prompts


def test_egress_is_closed_unless_an_init_container_fetches():
    assert manifest(rendered(*LEAST), "NetworkPolicy")["spec"]["egress"] == []
    assert "Egress" not in manifest(rendered(*FETCHED), "NetworkPolicy")["spec"]["policyTypes"]


REFUSED = {
    "nobody may call": (IN_IMAGE, "nothing says who may call"),
    "two ways to call": ((*LEAST, "--set", "server.apiKeys.secret=k"), "must be one of them"),
    "no authority": ((*LEAST, "--set", "server.tls.clientCa=true"), "its ca.crt is needed"),
    "no models": (ANONYMOUS, "the model repository comes from []"),
    "models twice": (
        (*LEAST, "--set", "models.claim.name=m"),
        "comes from [models.claim.name, models.inImage]",
    ),
    "more than most": ((*LEAST, "--set", "autoscaling.minReplicas=9"), "at most maxReplicas, 4"),
    "unknown value": ((*LEAST, "--set", "replica=2"), "replica"),
    "no size": ((*LEAST, "--set-string", "sharedMemory=lots"), "/sharedMemory"),
    "no collector": ((*LEAST, "--set", "server.otlpEndpoint=host:4317"), "/server/otlpEndpoint"),
    "no format": ((*LEAST, "--set", "server.logFormat=xml"), "/server/logFormat"),
    "no number": ((*LEAST, "--set", "server.drainTimeoutSeconds=0"), "/server/drainTimeoutSeconds"),
}


@pytest.mark.parametrize("what", REFUSED)
def test_values_that_cannot_serve_are_refused(what):
    arguments, message = REFUSED[what]
    with pytest.raises(ToolError) as refused:
        rendered(*arguments)
    assert message in str(refused.value)


def test_chart_is_of_this_version_and_its_schema_knows_every_value():
    chart = yaml.safe_load((CHART / "Chart.yaml").read_text())
    assert chart["version"] == chart["appVersion"] == reelserve.__version__
    schema = json.loads((CHART / "values.schema.json").read_text())
    values = yaml.safe_load((CHART / "values.yaml").read_text())
    assert schema["properties"].keys() - {"global"} == values.keys()


def test_load_is_of_metrics_that_the_server_has():
    trigger = manifest(rendered(*WAYS["keda"]), "ScaledObject")["spec"]["triggers"][0]
    names = re.findall(r"reelserve_\w+", trigger["metadata"]["query"].replace("clips-", ""))
    page = (CHART.parents[2] / "docs" / "serving.md").read_text()
    assert names and all(f"`{name}`" in page for name in names)
