from __future__ import annotations

import io
import threading

from rich.console import Console
from tritonclient.grpc import service_pb2

from reelserve.client import Client, StageStatistics
from reelserve.client._progress import STAGE_ORDER, Progress, stage_running

DONE = StageStatistics(requests=1, executions=1)


def test_stage_order_is_the_order_of_the_ensemble():
    assert STAGE_ORDER == (
        "prompt_processor",
        "text_encoder",
        "video_diffusion",
        "vae_decoder",
        "frame_consistency",
        "upsampler",
        "video_encoder",
    )


def test_stage_running_is_the_first_that_has_not_answered():
    assert stage_running({}, {}) == "prompt_processor"
    now = {"prompt_processor": DONE, "text_encoder": DONE}
    assert stage_running({}, now) == "video_diffusion"
    assert stage_running(now, now) == "prompt_processor"
    assert stage_running({}, dict.fromkeys(STAGE_ORDER, DONE)) == "sending the clip"


def test_stage_running_counts_runs_of_the_denoiser_during_diffusion():
    now = {"prompt_processor": DONE, "text_encoder": DONE}
    now["denoiser"] = StageStatistics(executions=5)
    before = {"denoiser": StageStatistics(executions=2)}
    assert stage_running(before, now) == "video_diffusion, 3 denoiser runs"


def test_progress_prints_a_line_for_each_stage_without_a_terminal(fake_triton):
    shown = io.StringIO()
    finished = threading.Event()

    class Scripted(Client):
        polls = 0

        def statistics(self):
            self.polls += 1
            if self.polls > 4:
                finished.set()
            done = STAGE_ORDER[: max(0, self.polls - 2)]
            return dict.fromkeys(done, DONE)

    with Scripted(fake_triton.url) as client:
        with Progress(client, Console(file=shown, width=100)):
            assert finished.wait(10)
    lines = [line.split(" s ")[1].strip() for line in shown.getvalue().splitlines()]
    assert lines[:3] == ["prompt_processor", "text_encoder", "video_diffusion"]


def test_progress_stays_silent_when_the_server_gives_no_statistics():
    shown = io.StringIO()
    with Client("127.0.0.1:9") as client, Progress(client, Console(file=shown)):
        pass
    assert shown.getvalue() == ""


def test_statistics_names_every_model(fake_triton):
    fake_triton.statistics = [service_pb2.ModelStatistics(name=name) for name in STAGE_ORDER]
    with Client(fake_triton.url) as client:
        assert tuple(client.statistics()) == STAGE_ORDER
