"""Where and when a figure was measured, the GPU included."""

from __future__ import annotations

import os
from typing import Any

import torch

from reelserve.pipeline.provenance import provenance


def device_provenance(device: str) -> dict[str, Any]:
    """Fields that every results file of training carries.

    The commit comes from git, or from `REELSERVE_COMMIT` where the tree has no history.
    """
    fields = provenance()
    gpu = device.startswith("cuda")
    return {
        "commit": os.environ.get("REELSERVE_COMMIT") or fields["commit"],
        "hardware": torch.cuda.get_device_name() if gpu else fields["cpu"],
        "versions": {"python": fields["python"], "torch": torch.__version__},
        "date": fields["date"],
    }
