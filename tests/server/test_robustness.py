"""A server that is full, or whose clients and stages misbehave, keeps serving."""

import queue
import re
import threading
import time

import pytest
from tritonclient.grpc import InferenceServerClient
from tritonclient.utils import InferenceServerException

from tests.server.grpc_requests import digest, executions, generate, infer_input
from tests.server.test_config import config_of, parameter

pytestmark = pytest.mark.server
LIMIT = parameter(config_of("text_to_video"), "max_requests_in_flight")


@pytest.fixture(autouse=True)
def still_serves(tiny_server):
    """After every test the server draws what it drew before."""
    before = digest(tiny_server, prompt="a red star", seed=1)
    yield
    assert digest(tiny_server, prompt="a red star", seed=1) == before


def test_requests_are_refused_at_once_when_the_server_is_full(tiny_server):
    refusals, videos = [], []
    barrier = threading.Barrier(40)

    def call(seed: int) -> None:
        barrier.wait()
        try:
            videos.append(
                generate(tiny_server, prompt="a red star", seed=seed, num_inference_steps=50)
            )
        except InferenceServerException as error:
            refusals.append(error)

    threads = [threading.Thread(target=call, args=(seed,)) for seed in range(40)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert len(videos) >= LIMIT
    assert len(videos) + len(refusals) == 40
    assert refusals, f"40 requests fitted into a server for {LIMIT}"
    for error in refusals:
        assert error.status() == "StatusCode.UNAVAILABLE"
        words = f"{LIMIT} requests are in flight, as many as the limit; retry after [0-9]+ s"
        assert re.fullmatch(words, error.message())


def test_requests_end_when_their_clients_give_up(tiny_server):
    errors = []
    with InferenceServerClient(tiny_server.grpc_url) as client:
        encoded = executions(tiny_server, "video_encoder")[0]
        inputs = [infer_input("PROMPT", "a red star"), infer_input("NUM_INFERENCE_STEPS", 50)]
        for _ in range(20):
            call = client.async_infer(
                "text_to_video", inputs, callback=lambda result, error: errors.append(error)
            )
            time.sleep(0.01)
            call.cancel()
        deadline = time.monotonic() + 30
        # Their places come free, or 20 of them would fill the server for good.
        while time.monotonic() < deadline:
            try:
                for seed in range(4):
                    generate(tiny_server, prompt="a red star", seed=seed)
                break
            except InferenceServerException:
                time.sleep(0.1)

        # gRPC calls back from a thread of its own; Triton counts after it has answered.
        while time.monotonic() < deadline and (
            len(errors) < 20 or executions(tiny_server, "video_encoder")[0] - encoded < 4
        ):
            time.sleep(0.01)

    assert len(errors) == 20 and all(errors)
    assert executions(tiny_server, "video_encoder")[0] - encoded >= 4


def test_nothing_is_said_when_clients_are_lost(tiny_server):
    """A client that goes in the middle of its stream is no mistake of the server."""
    said = tiny_server.messages()
    events = queue.Queue()
    for count in range(8):
        with InferenceServerClient(tiny_server.grpc_url) as client:
            client.start_stream(callback=lambda result, error: events.put((result, error)))
            client.async_stream_infer(
                "text_to_video",
                [infer_input("PROMPT", "a red star"), infer_input("NUM_INFERENCE_STEPS", 50)],
                parameters={"progress": True},
            )
            for _ in range(count % 4):
                events.get(timeout=30)
            client.stop_stream(cancel_requests=True)

    assert tiny_server.messages() == said
