"""A whole service whose parts are killed, stopped and ended, and one of two Tritons."""

import asyncio
import contextlib
import importlib.util
import json
import os
import re
import signal
import threading
import time
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from typing import ClassVar

import grpc
import psutil
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from tritonclient.grpc import InferenceServerClient
from tritonclient.utils import InferenceServerException

from reelserve.client import Client, UnavailableError
from reelserve.pipeline.contract import ENSEMBLE_STAGES
from reelserve.server.launch import serving
from reelserve.server.launch.run_folder import SHARED_MEMORY
from reelserve.server.launch.running_server import Server
from reelserve.server.launch.stage_processes import (
    child_processes,
    instance_processes,
    stage_processes,
)
from reelserve.server.launch.triton_process import KILL_AFTER_S
from reelserve.server.launch.tritons import ServeOptions
from tests.server.grpc_requests import generate, infer_input
from tests.server.launch.test_launcher import held, left_over, processes, shared_memory
from tests.server.test_streaming import LONG, metrics

pytestmark = pytest.mark.server
WAIT_S = 30
SERVER_KIND = 2
"""Kind of the span of a request, in OTLP."""
MANY = 1000
"""Steps of a clip that does not end by itself before what is done to it."""
REQUEST = {"prompt": "a red star", "seed": 1}


def wait_until(condition):
    deadline = time.monotonic() + WAIT_S
    while not condition():
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.02)


def tritons(server: Server) -> list[int]:
    """Process ids of the Tritons that run now, oldest first."""
    return [child.pid for child in child_processes(server.pid)]


def drawing(pool, server, count=1, **options):
    """Clips in flight that have begun to take steps; seeds from 100."""

    def draw(seed):
        with Client(server.grpc_url) as client:
            return client.generate("a red star", seed=100 + seed, **{**LONG, **options})

    futures = [pool.submit(draw, seed) for seed in range(count)]
    wait_until(lambda: metrics(server)["reelserve_requests_in_flight"] == count)
    return futures


@pytest.fixture(scope="module")
def server(tiny_repository):
    """One whose parts are broken; it is whole again after every test."""
    with Server(ServeOptions(tiny_repository, hang_timeout_s=2)) as server:
        yield server


@pytest.fixture(scope="module")
def expected(tiny_server):
    """Bytes of `REQUEST`."""
    return generate(tiny_server, **REQUEST)[0]


def drawn_again(server) -> bytes:
    """`REQUEST`, as soon as the server takes it again."""
    deadline = time.monotonic() + WAIT_S
    with Client(server.grpc_url) as client:
        while True:
            try:
                return client.generate("a red star", seed=1).mp4
            except UnavailableError as error:
                assert error.retry_after_s is not None
                assert time.monotonic() < deadline
                time.sleep(0.05)


@contextlib.contextmanager
def health(server):
    """States as `grpc.health.v1` tells them."""
    with grpc.insecure_channel(server.grpc_url) as channel:
        watch = health_pb2_grpc.HealthStub(channel).Watch(
            health_pb2.HealthCheckRequest(), timeout=2 * WAIT_S
        )
        yield (told.status for told in watch)
        watch.cancel()


def kill_triton(server):
    os.kill(server.triton_pid, signal.SIGKILL)


def kill_a_stage(server):
    os.kill(stage_processes(server.triton_pid)["video_diffusion"], signal.SIGKILL)


def stop_a_stage(server):
    os.kill(stage_processes(server.triton_pid)["denoiser"], signal.SIGSTOP)


def stop_triton(server):
    os.kill(server.triton_pid, signal.SIGSTOP)


@pytest.mark.parametrize("harm", [kill_triton, kill_a_stage, stop_a_stage, stop_triton])
def test_clips_in_flight_fail_and_triton_is_started_again(server, expected, harm):
    """Four times, which is less often than a Triton is given up after."""
    pids, restarts = processes(server), metrics(server)["reelserve_triton_restarts_total"]
    with ThreadPoolExecutor(2) as pool, health(server) as states:
        futures = drawing(pool, server, 2, num_inference_steps=MANY, timeout_s=1e6)
        assert next(states) == health_pb2.HealthCheckResponse.SERVING
        harm(server)
        for future in futures:
            with pytest.raises(UnavailableError) as caught:
                future.result(WAIT_S)
            assert re.search(r"retry after \d+ s", str(caught.value))
        assert next(states) == health_pb2.HealthCheckResponse.NOT_SERVING
        assert next(states) == health_pb2.HealthCheckResponse.SERVING

    assert drawn_again(server) == expected
    front_end, *others = pids
    assert server.pid == front_end and left_over(others) == []
    assert not {server.triton_pid, *stage_processes(server.triton_pid).values()} & set(others)
    now = metrics(server)
    assert now["reelserve_triton_restarts_total"] == restarts + 1
    assert now["reelserve_requests_in_flight"] == 0 and now["reelserve_tritons_ready"] == 1


def test_everything_dies_with_the_front_end_and_the_next_start_clears_what_it_left(
    tiny_repository,
):
    with Server(ServeOptions(tiny_repository)) as server:
        pids = [server.pid, server.triton_pid, *stage_processes(server.triton_pid).values()]
        generate(server, **REQUEST)
        os.kill(server.pid, signal.SIGKILL)
        assert server.wait(WAIT_S) == -signal.SIGKILL
        assert left_over(pids) == []
        # Another server may have started since.
        assert not held(SHARED_MEMORY / server.running.region_prefix[:-1].replace("_", "-"))
        with Server(ServeOptions(tiny_repository)) as after:
            assert shared_memory(server) == [] and shared_memory(after)
            generate(after, **REQUEST)


@contextlib.contextmanager
def ending(tiny_repository, **options):
    """A server with clips in flight that was told to end."""
    with (
        Server(ServeOptions(tiny_repository, **options)) as server,
        ThreadPoolExecutor(4) as pool,
        InferenceServerClient(server.grpc_url) as triton,
    ):
        futures = drawing(pool, server, 4)
        os.kill(server.pid, signal.SIGTERM)
        wait_until(lambda: not triton.is_server_ready())
        yield server, futures, triton


def test_clips_in_flight_are_drawn_when_the_server_is_told_to_end(tiny_repository):
    with ending(tiny_repository) as (server, futures, triton):
        assert triton.is_server_live() and not triton.is_model_ready("text_to_video")
        with Client(server.grpc_url) as client:
            with pytest.raises(UnavailableError, match="the server is shutting down; retry after"):
                client.generate("a red star")
            with pytest.raises(UnavailableError, match="the server is shutting down; retry after"):
                list(client.stream("a red star"))
        for future in futures:
            assert future.result(WAIT_S).mp4[4:8] == b"ftyp"
        assert server.wait(WAIT_S) == 0


@pytest.mark.parametrize("how", ["second signal", "drain timeout"])
def test_clips_in_flight_fail_when_the_server_may_not_wait(tiny_repository, how):
    options = {"drain_timeout_s": 0.2} if how == "drain timeout" else {}
    with ending(tiny_repository, **options) as (server, futures, _):
        pids = [server.triton_pid, *instance_processes(server.triton_pid).values()]
        if how == "second signal":
            os.kill(server.pid, signal.SIGTERM)
        outcomes = [future.exception(WAIT_S) for future in futures]
        assert server.wait(WAIT_S) == 0
        assert left_over(pids) == []

    errors = [error for error in outcomes if error is not None]
    assert errors, "all four were drawn before"
    for error in errors:
        assert isinstance(error, UnavailableError)
        assert "the server is shutting down" in str(error)


def test_a_signal_kills_tritons_that_take_their_time_to_end():
    class Slow:
        asked: ClassVar[list[float]] = []

        async def stop(self, kill_after_s=KILL_AFTER_S):
            self.asked.append(kill_after_s)
            await asyncio.sleep(kill_after_s)

    async def stopped():
        signals = serving._Signals()
        asyncio.get_running_loop().call_later(0.05, os.kill, os.getpid(), signal.SIGTERM)
        await serving._stop([Slow(), Slow()], signals)

    asyncio.run(stopped())
    assert Slow.asked == [KILL_AFTER_S, KILL_AFTER_S, 0, 0]


@pytest.fixture(scope="module")
def log(tmp_path_factory):
    """The log of `two`."""
    return tmp_path_factory.mktemp("log") / "log"


@pytest.fixture(scope="module")
def collector():
    """Gets the traces of `two`; None where the extra `tracing` is not installed."""
    if importlib.util.find_spec("opentelemetry") is None:
        yield None
        return
    from tests.server.frontend.collector import collecting

    with collecting() as collector:
        yield collector


@pytest.fixture(scope="module")
def two(tiny_repository, log, collector):
    options = {"gpus": ("0", "1"), "log_file": log, "log_format": "json"}
    options["otlp_endpoint"] = None if collector is None else collector.endpoint
    with Server(ServeOptions(tiny_repository, **options)) as server:
        yield server


def by_triton(server, name) -> dict[str, float]:
    """A metric of each Triton, by its name."""
    with urllib.request.urlopen(server.metrics_url, timeout=10) as reply:
        lines = reply.read().decode().splitlines()
    found = (re.match(rf'{name}\{{.*triton="(\w+)"\}} (\S+)$', line) for line in lines)
    return {match[1]: float(match[2]) for match in found if match}


def test_two_tritons_share_the_clips_and_give_the_same_bytes(two, tiny_server):
    count = "reelserve_batch_occupancy_sum"
    before = by_triton(two, count)
    barrier = threading.Barrier(8)

    def draw(seed):
        barrier.wait()
        return generate(two, prompt="a red star", seed=seed, num_inference_steps=20)[0]

    with InferenceServerClient(two.grpc_url) as client:
        clips = client.get_inference_statistics("text_to_video").model_stats[0].inference_count
        with ThreadPoolExecutor(8) as pool:
            videos = list(pool.map(draw, range(8)))

        def drawn() -> int:
            return client.get_inference_statistics("text_to_video").model_stats[0].inference_count

        # Triton counts a clip a moment after it has passed it on.
        wait_until(lambda: drawn() - clips == 8)

    def steps() -> dict[str, float]:
        return {name: value - before.get(name, 0) for name, value in by_triton(two, count).items()}

    # Where the machine is busy, a clip may end before the last ones come: not always four each.
    wait_until(lambda: sum(steps().values()) == 8 * 20)
    assert min(steps().values()) >= 2 * 20, "clips went to both"
    for seed, video in enumerate(videos):
        request = {"prompt": "a red star", "seed": seed, "num_inference_steps": 20}
        assert video == generate(tiny_server, **request)[0]


def test_each_triton_sees_its_own_gpu(two):
    variables = [psutil.Process(pid).environ() for pid in tritons(two)]
    assert sorted(each["CUDA_VISIBLE_DEVICES"] for each in variables) == ["0", "1"]


def test_a_triton_that_dies_takes_only_its_own_clips_and_comes_back(two, expected):
    wait_until(lambda: metrics(two)["reelserve_tritons_ready"] == 2)
    with ThreadPoolExecutor(4) as pool:
        futures = drawing(pool, two, 4, num_inference_steps=50)
        os.kill(tritons(two)[0], signal.SIGKILL)
        outcomes = [future.exception(WAIT_S) for future in futures]
        assert drawn_again(two) == expected, "the other one serves"

    assert sorted(isinstance(one, UnavailableError) for one in outcomes) == [False] * 2 + [True] * 2
    assert outcomes.count(None) == 2
    wait_until(lambda: metrics(two)["reelserve_tritons_ready"] == 2)
    assert set(by_triton(two, "reelserve_requests_active")) == {"gpu0", "gpu1"}
    stages = [instance_processes(pid) for pid in tritons(two)]
    assert all(set(ENSEMBLE_STAGES) <= {n.removesuffix("_0_0") for n in one} for one in stages)


def test_a_stage_that_dies_idle_is_seen_without_a_request(two, expected):
    wait_until(lambda: metrics(two)["reelserve_tritons_ready"] == 2)
    victim = tritons(two)[1]
    os.kill(stage_processes(victim)["upsampler"], signal.SIGKILL)
    wait_until(lambda: victim not in tritons(two))
    wait_until(lambda: metrics(two)["reelserve_tritons_ready"] == 2)

    assert drawn_again(two) == expected


FORGED = 'x"\n{"source": "server", "message": "request", "id": "forged"}\r\x1b[31m\u2028'


def test_every_line_of_the_log_is_an_object_over_crashes_and_restarts(two, log):
    def told():
        return [json.loads(line) for line in log.read_bytes().splitlines()]

    def requests():
        return [one for one in told() if one["message"] == "request"]

    before = len(requests())
    os.kill(tritons(two)[0], signal.SIGKILL)
    wait_until(lambda: metrics(two)["reelserve_tritons_ready"] == 1)
    wait_until(lambda: metrics(two)["reelserve_tritons_ready"] == 2)
    with Client(two.grpc_url) as client:
        client.generate('a red star\n{"\x1b[31m', seed=1)
    with InferenceServerClient(two.grpc_url) as client:
        with pytest.raises(InferenceServerException, match="PROMPT is"):
            client.infer("text_to_video", [infer_input("PROMPT", " ")], request_id=FORGED)
    # A call that an earlier test gave up may end now, and has a line, too.
    wait_until(lambda: any(one.get("id") == FORGED for one in requests()[before:]))

    drawn = next(one for one in requests()[before:] if one.get("seed") == 1)
    refused = next(one for one in requests()[before:] if one.get("id") == FORGED)
    assert (drawn["code"], drawn["steps"]) == ("OK", 4)
    assert drawn["triton"] in ("gpu0", "gpu1") and 0 <= drawn["waited_s"] <= drawn["seconds"]
    assert (refused["code"], refused["id"]) == ("INVALID_ARGUMENT", FORGED)
    lines = told()
    assert not any("a red star" in str(one) or "forged" == one.get("id") for one in lines)
    assert {one["source"] for one in lines} == {"server", "gpu0", "gpu1"}
    for name in ("gpu0", "gpu1"):
        ours = [one["message"] for one in lines if one["source"] == name]
        assert any("Started GRPCInferenceService" in message for message in ours)
    restarted = [one for one in lines if one["message"].endswith("it is started again")]
    assert restarted and {one["level"] for one in restarted} == {"error"}


def test_a_clip_of_a_real_server_is_a_trace_of_all_stages_and_steps(two, log, collector):
    if collector is None:
        pytest.skip("the extra `tracing` is not installed")
    trace = "4bf92f3577b34da6a3ce929d0e0e4736"
    with InferenceServerClient(two.grpc_url) as client:
        client.infer(
            "text_to_video",
            [infer_input("PROMPT", "a red star"), infer_input("NUM_INFERENCE_STEPS", 3)],
            headers={"traceparent": f"00-{trace}-00f067aa0ba902b7-01"},
        )

    def ours():
        return [span for span in collector.spans if span.trace_id.hex() == trace]

    wait_until(lambda: len(ours()) == 1 + len(ENSEMBLE_STAGES))
    (request,) = (span for span in ours() if span.kind == SERVER_KIND)
    stages = collector.stages(request)
    assert [stage.name for stage in stages] == list(ENSEMBLE_STAGES)
    assert all(one.end_time_unix_nano <= request.end_time_unix_nano for one in stages)
    (diffusion,) = (stage for stage in stages if stage.name == "video_diffusion")
    assert [event.name for event in diffusion.events] == ["step"] * 3
    lines = map(json.loads, log.read_text().splitlines())
    assert any(one.get("trace_id") == trace for one in lines), "the line names the trace"
