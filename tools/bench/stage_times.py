"""Seconds of every stage, from two readings of Triton's statistics and a clip's INFO."""

from __future__ import annotations

import time
from collections.abc import Mapping

from rich.table import Table

from reelserve.client import Client, StageStatistics
from reelserve.pipeline import contract

SETTLE_POLL_S = 0.02
SETTLE_TIMEOUT_S = 2.0


def settled_statistics(
    client: Client, before: Mapping[str, StageStatistics]
) -> dict[str, StageStatistics]:
    """Reads the counters once every stage of a finished request has been counted.

    Triton counts a stage after it has passed its answer on, so the last stages may still lack
    when the clip is here.

    Args:
        client: Client of the server.
        before: Reading from before the request.
    """
    idle = StageStatistics()
    deadline = time.monotonic() + SETTLE_TIMEOUT_S
    while True:
        now = client.statistics()
        counted = all(
            now.get(stage, idle).requests > before.get(stage, idle).requests
            for stage in contract.STAGES
        )
        if counted or time.monotonic() > deadline:
            return now
        time.sleep(SETTLE_POLL_S)


def stage_seconds(
    before: Mapping[str, StageStatistics], after: Mapping[str, StageStatistics], diffusion_s: float
) -> dict[str, float]:
    """Seconds that each stage computed for a clip that was alone, in the order of the flow.

    `denoiser` runs inside `video_diffusion`: its seconds are taken out of the latter's, so the
    values add up.

    Args:
        before: Reading from before the clip.
        after: Reading from after it.
        diffusion_s: Seconds of `video_diffusion` in the clip's INFO. Triton counts milliseconds
            there, since that stage answers long after it has returned.
    """
    idle = StageStatistics()
    seconds = {
        stage: (after.get(stage, idle) - before.get(stage, idle)).compute_s
        for stage in contract.STAGES
    }
    seconds["video_diffusion"] = max(0.0, diffusion_s - seconds["denoiser"])
    return seconds


def stage_table(seconds: Mapping[str, float], total_s: float) -> Table:
    """A table of the stages, what is left of `total_s`, and the total."""
    table = Table("stage", box=None, pad_edge=False)
    table.add_column("seconds", justify="right")
    for stage, value in seconds.items():
        table.add_row(stage, f"{value:.3f}")
    table.add_row("between stages", f"{max(0.0, total_s - sum(seconds.values())):.3f}")
    table.add_section()
    table.add_row("total", f"{total_s:.3f}")
    return table
