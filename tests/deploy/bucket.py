"""A bucket of models: a server of S3 on this machine, and an image that holds the tool to copy."""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

from reelserve.tools.bench.image.containers import free_ports, run_podman
from tests.deploy.chart_tools import rclone

TAG = "localhost/reelserve-test-rclone"
CONTAINERFILE = 'FROM scratch\nCOPY rclone /bin/rclone\nENV PATH=/bin\nENTRYPOINT ["rclone"]\n'
KEY, SECRET = "reader", "only-for-tests"
START_TIMEOUT_S = 30.0


def settings(port: int) -> dict[str, str]:
    """Environment of rclone, beside what values-s3.yaml sets."""
    return {
        "RCLONE_CONFIG_S3_PROVIDER": "Other",
        "RCLONE_CONFIG_S3_ENDPOINT": f"http://127.0.0.1:{port}",
        "RCLONE_CONFIG_S3_ACCESS_KEY_ID": KEY,
        "RCLONE_CONFIG_S3_SECRET_ACCESS_KEY": SECRET,
    }


@contextlib.contextmanager
def served(folder: Path) -> Iterator[int]:
    """Serves the folders in `folder` as buckets that may be read; the port.

    Raises:
        ToolError: If there is no rclone.
    """
    (port,) = free_ports(1)
    # Without a cache of folders a change is seen at once.
    options = ("--read-only", f"--auth-key={KEY},{SECRET}", "--dir-cache-time=0s", "--config=")
    command = [str(rclone()), "serve", "s3", *options, f"--addr=127.0.0.1:{port}", str(folder)]
    process = subprocess.Popen(command, stderr=subprocess.DEVNULL)
    try:
        deadline = time.monotonic() + START_TIMEOUT_S
        while not _listens(port):
            assert time.monotonic() < deadline and process.poll() is None
            time.sleep(0.05)
        yield port
    finally:
        process.terminate()
        process.wait()


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def build_image(folder: Path) -> None:
    """Builds `TAG`: what docker.io/rclone/rclone is, without a registry.

    Args:
        folder: For what it is built from.
    """
    shutil.copy(rclone(), folder)
    (folder / "Containerfile").write_text(CONTAINERFILE)
    run_podman("build", "--quiet", "--tag", TAG, str(folder))


def fetch(environment: dict[str, str], arguments: list[str]) -> None:
    """Runs the tool on this machine as the chart's init container does."""
    command = [str(rclone()), *arguments]
    subprocess.run(command, env={**os.environ, **environment}, check=True, capture_output=True)
