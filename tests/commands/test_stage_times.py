from __future__ import annotations

import io

import pytest
from rich.console import Console

from reelserve.client import StageStatistics
from reelserve.commands.stage_times import stage_seconds, stage_table


def reading(**seconds: float) -> dict[str, StageStatistics]:
    return {stage: StageStatistics(compute_s=value) for stage, value in seconds.items()}


def test_stage_seconds_are_differences_in_the_order_of_the_flow():
    before = reading(vae_decoder=1.0, video_diffusion=2.0, denoiser=1.5)
    after = reading(vae_decoder=1.5, video_diffusion=8.0, denoiser=7.0, text_to_video=99.0)
    seconds = stage_seconds(before, after)
    assert list(seconds) == [
        "prompt_processor",
        "text_encoder",
        "video_diffusion",
        "denoiser",
        "vae_decoder",
        "frame_consistency",
        "upsampler",
        "video_encoder",
    ]
    assert seconds["vae_decoder"] == pytest.approx(0.5)
    assert seconds["denoiser"] == pytest.approx(5.5)
    assert seconds["video_diffusion"] == pytest.approx(0.5)


def test_stage_table_adds_up_to_the_total():
    shown = io.StringIO()
    seconds = {"denoiser": 2.0, "upsampler": 1.0}
    Console(file=shown, width=60).print(stage_table(seconds, 3.25))
    values = {
        " ".join(words[:-1]): words[-1]
        for line in shown.getvalue().splitlines()
        if (words := line.split())
    }
    assert values["between stages"] == "0.250"
    assert values["total"] == "3.250"
