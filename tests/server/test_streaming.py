"""Progress, cancels, places, priorities and metrics, through the real server."""

import os
import re
import signal
import subprocess
import sys
import threading
import time
import urllib.request
from concurrent.futures import ThreadPoolExecutor

import pytest
from tritonclient.grpc import InferenceServerClient

from reelserve.client import (
    Client,
    DeadlineExceededError,
    InvalidArgumentError,
    RequestCancelledError,
    UnavailableError,
)
from reelserve.pipeline.contract import ENSEMBLE_STAGES
from reelserve.server.launch.running_server import Server
from reelserve.server.launch.tritons import ServeOptions
from tests.server.grpc_requests import generate, infer_input
from tests.server.tiny_repository import REPOSITORY, write_lock, write_tiny_repository

pytestmark = pytest.mark.server
LONG = {"num_inference_steps": 50, "num_frames": 64, "height": 128, "width": 128}
"""A request that takes long enough to be watched."""
WATCHED = {**LONG, "num_inference_steps": 1000}
"""One that is left long before its end, also on a machine that is busy."""
TIMEOUT_S = 60


def metrics(server) -> dict[str, float]:
    """Every metric of ours by name and labels."""
    with urllib.request.urlopen(server.metrics_url, timeout=10) as reply:
        lines = reply.read().decode().splitlines()
    pairs = (line.rsplit(" ", 1) for line in lines if line.startswith("reelserve_"))
    return {name: float(value) for name, value in pairs}


def wait_until_idle(server) -> None:
    deadline = time.monotonic() + TIMEOUT_S
    while True:
        now = metrics(server)
        if now["reelserve_requests_in_flight"] == now["reelserve_requests_active"] == 0:
            return
        assert time.monotonic() < deadline, now
        time.sleep(0.01)


def wait_until_active(server) -> None:
    deadline = time.monotonic() + TIMEOUT_S
    while not metrics(server)["reelserve_requests_active"]:
        assert time.monotonic() < deadline, "nothing is denoised"
        time.sleep(0.005)


def test_stream_tells_steps_and_a_preview_and_gives_the_bytes_of_a_unary_call(tiny_server):
    with Client(tiny_server.grpc_url) as client:
        events = list(client.stream("a red star", seed=5, **LONG))
        video = client.generate("a red star", seed=5, **LONG)
    unary, _ = generate(tiny_server, prompt="a red star", seed=5, **LONG)

    steps = [event.step for event in events if event.kind == "step"]
    assert steps == sorted(set(steps)) and steps[-1] == 50
    assert {event.steps for event in events if event.kind == "step"} == {50}
    # The last one may end together with the clip.
    assert [event.stage for event in events if event.kind == "stage"][:6] == list(
        ENSEMBLE_STAGES[:6]
    )
    (preview,) = [event.preview for event in events if event.kind == "preview"]
    assert preview.startswith(b"\x89PNG")
    assert events[-1].video.mp4 == video.mp4 == unary
    seconds = [event.seconds for event in events]
    assert seconds == sorted(seconds)


def test_stream_refuses_with_the_servers_words(tiny_server):
    with (
        Client(tiny_server.grpc_url) as client,
        pytest.raises(InvalidArgumentError, match="'soon'; it must be one of interactive, batch"),
    ):
        list(client.stream("a red star", priority="soon"))


def leave_a_stream(client, server):
    with client.stream("a red star", **WATCHED) as stream:
        next(event for event in stream if event.kind == "step")


def leave_a_unary_call(client, server):
    inputs = [infer_input(k.upper(), v) for k, v in {"prompt": "a red star", **WATCHED}.items()]
    with InferenceServerClient(server.grpc_url) as triton:
        call = triton.async_infer("text_to_video", inputs, lambda result, error: None)
        wait_until_active(server)
        call.cancel()


def close_the_client(client, server):
    with ThreadPoolExecutor(1) as pool:
        future = pool.submit(client.generate, "a red star", **WATCHED)
        wait_until_active(server)
        client.close()
        with pytest.raises(RequestCancelledError, match="the client is closed"):
            future.result(TIMEOUT_S)


def let_the_deadline_pass(client, server):
    with pytest.raises(DeadlineExceededError):
        client.generate("a red star", timeout_s=0.15, **WATCHED)


@pytest.mark.parametrize(
    "leave", [leave_a_stream, leave_a_unary_call, close_the_client, let_the_deadline_pass]
)
def test_request_leaves_the_batch_when_its_client_does(tiny_server, leave):
    encoded = metrics(tiny_server).get('reelserve_stage_seconds_count{stage="video_encoder"}', 0)
    with Client(tiny_server.grpc_url) as client:
        leave(client, tiny_server)
    wait_until_idle(tiny_server)

    after = metrics(tiny_server).get('reelserve_stage_seconds_count{stage="video_encoder"}', 0)
    assert after == encoded, "stages ran for nobody"


@pytest.mark.parametrize("method", ["generate", "stream"])
def test_request_leaves_the_batch_when_its_clients_process_is_killed(tiny_server, method):
    program = (
        "import sys; from reelserve.client import Client\n"
        f"list(getattr(Client(sys.argv[1]), {method!r})('a red star', **{WATCHED!r}))"
    )
    process = subprocess.Popen([sys.executable, "-c", program, tiny_server.grpc_url])
    wait_until_active(tiny_server)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()

    wait_until_idle(tiny_server)


def test_deadline_that_cannot_be_met_is_refused_before_the_text_is_encoded(tiny_server):
    with Client(tiny_server.grpc_url) as client:
        client.generate("a red star", **LONG)
        name = 'reelserve_stage_seconds_count{stage="text_encoder"}'
        before = metrics(tiny_server)[name]
        with pytest.raises(DeadlineExceededError):
            client.generate("a red star", timeout_s=0.02, **LONG)
        wait_until_idle(tiny_server)

    assert metrics(tiny_server)[name] == before


def test_interactive_request_passes_waiting_batch_requests_and_those_finish(tiny_server):
    ended: list[str] = []

    def draw(name: str, seed: int, priority: str) -> None:
        with Client(tiny_server.grpc_url) as client:
            client.generate(
                "a red star", seed=seed, priority=priority, **{**LONG, "num_inference_steps": 200}
            )
        ended.append(name)

    with ThreadPoolExecutor(9) as pool:
        futures = [pool.submit(draw, f"batch{seed}", seed, "batch") for seed in range(8)]
        wait_until_active(tiny_server)
        time.sleep(0.2)
        futures.append(pool.submit(draw, "interactive", 9, "interactive"))
        for future in futures:
            future.result(TIMEOUT_S)

    assert len(ended) == 9
    assert ended.index("interactive") < 5, ended


def test_refusals_are_counted_and_say_when_to_try_again(tiny_server):
    refusals: list[str] = []
    before = metrics(tiny_server)
    barrier = threading.Barrier(30)

    def draw(seed: int) -> None:
        with Client(tiny_server.grpc_url) as client:
            barrier.wait()
            try:
                list(client.stream("a red star", seed=seed, **LONG))
            except UnavailableError as error:
                refusals.append(str(error))

    with ThreadPoolExecutor(30) as pool:
        list(pool.map(draw, range(30)))

    assert refusals and all(re.search(r"retry after \d+ s", refusal) for refusal in refusals)
    name = 'reelserve_refusals_total{model="text_to_video",reason="capacity"}'
    assert metrics(tiny_server)[name] - before.get(name, 0) == len(refusals)


def test_metrics_count_every_outcome(tiny_server):
    before = metrics(tiny_server)
    with Client(tiny_server.grpc_url) as client:
        client.generate("a red star")
        list(client.stream("a red star", num_frames=16, fps=8))
        for call in (client.generate, lambda prompt: list(client.stream(prompt))):
            with pytest.raises(InvalidArgumentError):
                call("")
    wait_until_idle(tiny_server)
    after = metrics(tiny_server)

    def grown(name: str) -> float:
        return after[name] - before.get(name, 0)

    for outcome in ("ok", "invalid"):
        assert grown(f'reelserve_requests_total{{model="text_to_video",outcome="{outcome}"}}') == 2
    assert grown('reelserve_request_seconds_count{model="text_to_video"}') == 2
    assert grown("reelserve_videos_total") == 2
    assert grown("reelserve_video_seconds_total") == 4
    for stage in ENSEMBLE_STAGES:
        assert grown(f'reelserve_stage_seconds_count{{stage="{stage}"}}') == 2
    assert grown("reelserve_batch_occupancy_count") == grown("reelserve_step_seconds_count") == 8


def test_every_metric_of_the_docs_is_on_the_endpoint(tiny_server):
    with Client(tiny_server.grpc_url) as client:
        leave_a_stream(client, tiny_server)
        client.generate("a red star")
    wait_until_idle(tiny_server)
    page = (REPOSITORY.parent / "docs" / "serving.md").read_text()
    documented = set(re.findall(r"`(reelserve_\w+)`", page))
    with urllib.request.urlopen(tiny_server.metrics_url, timeout=10) as reply:
        served = set(re.findall(r"^# TYPE (reelserve_\w+)", reply.read().decode(), re.MULTILINE))

    assert documented == served


def test_equal_requests_are_drawn_once_when_answers_are_shared(tmp_path):
    repository = write_tiny_repository(tmp_path / "repository")
    folder = repository / "text_to_video"
    text, count = re.subn(
        r'(share_answers_seconds" value \{ string_value: )"0"',
        r'\1"60"',
        (folder / "config.pbtxt").read_text(),
    )
    assert count == 1
    # As the configs of an engine: chosen by the lock, where a model has them.
    (folder / "configs" / "shared.pbtxt").write_text(text)
    write_lock(repository, config_name="shared")
    with Server(ServeOptions(repository)) as server, Client(server.grpc_url) as client:
        with ThreadPoolExecutor(3) as pool:
            futures = [pool.submit(client.generate, "a red star", seed=1, **LONG) for _ in range(3)]
            videos = [future.result(TIMEOUT_S).mp4 for future in futures]
        videos.append(list(client.stream("a red star", seed=1, **LONG))[-1].video.mp4)
        other = client.generate("a red star", seed=2, **LONG).mp4
        now = metrics(server)

    assert len(set(videos)) == 1 and other not in videos
    assert now['reelserve_stage_seconds_count{stage="video_encoder"}'] == 2
    shared = [value for name, value in now.items() if name.startswith("reelserve_shared_answers")]
    assert sum(shared) == 3
