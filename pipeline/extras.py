"""Says how a package is installed that is missing: which extra of reelserve brings it."""

from __future__ import annotations

import re
from importlib import metadata

PROJECT = "reelserve"
DISTRIBUTIONS = {
    "PIL": "pillow",
    "grpc": "grpcio",
    "grpc_health": "grpcio-health-checking",
    "grpc_reflection": "grpcio-reflection",
    "markupsafe": "jinja2",
    "onnx_ir": "onnxscript",
    "opentelemetry": "opentelemetry-sdk",
    "pytriton": "nvidia-pytriton",
    "tensorrt_rtx_bindings": "tensorrt-rtx-cu13-bindings",
    "yaml": "pyyaml",
}
"""Packages whose distribution has another name, or that another one brings."""
_NAME = re.compile(r"[A-Za-z0-9._-]+")
_EXTRA = re.compile(r"extra\s*==\s*['\"](?P<extra>[^'\"]+)['\"]")


def install_advice(module: str, room: str = "") -> str:
    """How a missing module is installed, as `pip install 'reelserve[export]'` with backquotes.

    Args:
        module: Its name, as `ModuleNotFoundError.name` gives it.
        room: Extra that is named where several bring it.
    """
    package = module.partition(".")[0]
    if package == PROJECT:
        return f"`pip install --force-reinstall {PROJECT}`"
    name = normal(DISTRIBUTIONS.get(package, package))
    extras = extras_by_distribution().get(name)
    if extras is None:
        return f"`pip install {name}`"
    extra = room if room in extras else extras[0]
    return f"`pip install '{PROJECT}[{extra}]'`" if extra else f"`pip install {PROJECT}`"


def extras_by_distribution() -> dict[str, list[str]]:
    """Distribution to the extras that bring it, in their order; "" is the package without any."""
    found: dict[str, list[str]] = {}
    for requirement in metadata.requires(PROJECT) or []:
        named = _NAME.match(requirement)
        extra = _EXTRA.search(requirement)
        if named is not None:
            found.setdefault(normal(named[0]), []).append(extra["extra"] if extra else "")
    return found


def normal(name: str) -> str:
    """A distribution's name as package indexes compare it."""
    return re.sub(r"[-_.]+", "-", name).lower()
