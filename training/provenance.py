"""Where and when a figure was measured: commit, hardware, versions, date."""

from __future__ import annotations

import datetime
import os
import platform
import subprocess
from typing import Any

import torch


def provenance(device: str) -> dict[str, Any]:
    """Fields that every results file carries.

    The commit comes from git, or from `REELSERVE_COMMIT` where the tree has no history.
    """
    hardware = torch.cuda.get_device_name() if device.startswith("cuda") else platform.machine()
    return {
        "commit": os.environ.get("REELSERVE_COMMIT") or _git_commit(),
        "hardware": hardware,
        "versions": {"python": platform.python_version(), "torch": torch.__version__},
        "date": datetime.datetime.now(datetime.timezone.utc).date().isoformat(),
    }


def _git_commit() -> str:
    command = ["git", "rev-parse", "HEAD"]
    found = subprocess.run(command, capture_output=True, text=True, check=False)
    return found.stdout.strip() or "unknown"
