from __future__ import annotations

import io
import threading

from rich.console import Console
from tritonclient.grpc import service_pb2

from reelserve.client import Client, StageStatistics
from reelserve.client.progress import STAGE_ORDER, Progress, last_moved

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


def test_last_moved_is_the_last_stage_that_has_answered():
    assert last_moved({}, {}) == "request sent"
    now = {"prompt_processor": DONE, "text_encoder": DONE}
    assert last_moved({}, now) == "text_encoder done"
    assert last_moved(now, now) == "request sent"
    assert last_moved({}, dict.fromkeys(STAGE_ORDER, DONE)) == "video_encoder done"


def test_last_moved_counts_the_steps_of_diffusion():
    before = {"text_encoder": DONE, "video_diffusion": StageStatistics(requests=8)}
    now = {**before, "video_diffusion": StageStatistics(requests=11)}
    assert last_moved(before, now) == "video_diffusion, step 3 done"


def test_progress_prints_a_line_for_each_stage_without_a_terminal(fake_triton):
    shown = io.StringIO()
    finished = threading.Event()

    class Scripted(Client):
        polls = 0

        def statistics(self):
            self.polls += 1
            if self.polls > 6:
                finished.set()
            done = STAGE_ORDER[: max(0, self.polls - 2)]
            return dict.fromkeys(done, DONE)

    with Scripted(fake_triton.url) as client:
        with Progress(client, Console(file=shown, width=100)):
            assert finished.wait(10)
    lines = [line.split(" s ")[1].strip() for line in shown.getvalue().splitlines()]
    assert lines[:4] == [
        "request sent",
        "prompt_processor done",
        "text_encoder done",
        "video_diffusion, step 1 done",
    ]


def test_progress_stays_silent_when_the_server_gives_no_statistics():
    shown = io.StringIO()
    with Client("127.0.0.1:9") as client, Progress(client, Console(file=shown)):
        pass
    assert shown.getvalue() == ""


def test_statistics_names_every_model(fake_triton):
    fake_triton.statistics = [service_pb2.ModelStatistics(name=name) for name in STAGE_ORDER]
    with Client(fake_triton.url) as client:
        assert tuple(client.statistics()) == STAGE_ORDER
