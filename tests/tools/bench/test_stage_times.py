from __future__ import annotations

import io

import pytest
from rich.console import Console

from reelserve.client import Client, StageStatistics
from reelserve.pipeline import contract
from reelserve.tools.bench.stage_times import settled_statistics, stage_seconds, stage_table


class Scripted(Client):
    """Gives one reading after the other, then the last one for ever."""

    def __init__(self, *readings):
        self.readings = list(readings)

    def statistics(self):
        return self.readings.pop(0) if len(self.readings) > 1 else self.readings[0]


def reading(**seconds: float) -> dict[str, StageStatistics]:
    return {stage: StageStatistics(compute_s=value) for stage, value in seconds.items()}


def test_stage_seconds_are_differences_in_the_order_of_the_flow():
    before = reading(vae_decoder=1.0, video_diffusion=0.002, denoiser=1.5)
    after = reading(vae_decoder=1.5, video_diffusion=0.003, denoiser=7.0, text_to_video=99.0)
    seconds = stage_seconds(before, after, diffusion_s=6.0)
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


def test_settled_statistics_waits_for_the_stage_that_is_counted_last():
    done = dict.fromkeys(contract.STAGES, StageStatistics(requests=1))
    late = {**done, "video_encoder": StageStatistics()}
    assert settled_statistics(Scripted(late, late, done), {}) == done


def test_settled_statistics_gives_up_when_a_stage_is_never_counted(monkeypatch):
    monkeypatch.setattr("reelserve.tools.bench.stage_times.SETTLE_TIMEOUT_S", 0.05)
    assert settled_statistics(Scripted({}), {}) == {}
