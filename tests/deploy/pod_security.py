"""Kubernetes' restricted Pod Security Standard, as far as fields of this chart go.

Source: kubernetes.io/docs/concepts/security/pod-security-standards, "Restricted".
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

VOLUMES = {
    *("configMap", "csi", "downwardAPI", "emptyDir", "ephemeral", "persistentVolumeClaim"),
    *("projected", "secret"),
}
HOST = ("hostNetwork", "hostPID", "hostIPC")


def breaches(spec: dict[str, Any]) -> Iterator[str]:
    """What a pod does that the standard forbids.

    Args:
        spec: Of the pod.
    """
    for name in HOST:
        if spec.get(name):
            yield name
    pod = spec.get("securityContext", {})
    if pod.get("sysctls"):
        yield "sysctls"
    for volume in spec.get("volumes", []):
        for kind in volume.keys() - {"name"} - VOLUMES:
            yield f"volume {volume['name']}: {kind}"
    for container in (*spec.get("initContainers", []), *spec["containers"]):
        for breach in _of_container(pod, container):
            yield f"{container['name']}: {breach}"


def _of_container(pod: dict[str, Any], container: dict[str, Any]) -> Iterator[str]:
    own = container.get("securityContext", {})
    both = {**pod, **own}
    if own.get("privileged"):
        yield "privileged"
    if own.get("allowPrivilegeEscalation") is not False:
        yield "allowPrivilegeEscalation"
    if both.get("runAsNonRoot") is not True or both.get("runAsUser") == 0:
        yield "may run as root"
    if both.get("seccompProfile", {}).get("type") not in ("RuntimeDefault", "Localhost"):
        yield "seccompProfile"
    capabilities = own.get("capabilities", {})
    if capabilities.get("drop") != ["ALL"] or set(capabilities.get("add", [])) - {
        "NET_BIND_SERVICE"
    }:
        yield "capabilities"
    if any(port.get("hostPort") for port in container.get("ports", [])):
        yield "hostPort"
    if own.get("procMount", "Default") != "Default":
        yield "procMount"
