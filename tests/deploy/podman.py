"""The server's image for tests, and what they need to run it."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from reelserve.tools.bench.image.containers import run_tool

ROOT = Path(__file__).parents[2]
IMAGE = "localhost/reelserve-test"
BUILD_TIMEOUT_S = 900.0
NETAVARK = Path("/usr/lib/podman/netavark")
# Every podman that tests start, and those that they start, read it.
os.environ["CONTAINERS_CONF"] = str(Path(__file__).parent / "containers.conf")


def skip_without_podman() -> None:
    """Skips a test, with the reason, where no container can be run."""
    if shutil.which("podman") is None:
        pytest.skip("podman is not installed")
    if shutil.which("mmdebstrap") is None:
        pytest.skip("mmdebstrap is not installed, and the image is built without a registry")


def skip_without_network() -> None:
    """Skips a test, with the reason, where podman can publish no port."""
    if shutil.which("iptables") is None or not NETAVARK.exists():
        pytest.skip("podman's own network needs netavark and iptables")


def build() -> None:
    """Builds the image as `make image` does."""
    run_tool((str(ROOT / "deploy" / "build-image"), IMAGE), BUILD_TIMEOUT_S)
