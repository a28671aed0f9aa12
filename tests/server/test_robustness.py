"""A server that is full, or whose clients and stages misbehave, keeps serving."""

import re
import threading
import time

import numpy as np
import pytest
from tritonclient.grpc import InferenceServerClient
from tritonclient.utils import InferenceServerException

from reelserve.pipeline.contract import STAGES
from tests.server.grpc_requests import digest, executions, generate, infer_input
from tests.server.test_config import config_of, parameter

pytestmark = pytest.mark.server
LIMIT = parameter(config_of("text_to_video_stream"), "max_requests_in_flight")


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
        started = time.monotonic()
        try:
            videos.append(
                generate(tiny_server, prompt="a red star", seed=seed, num_inference_steps=50)
            )
        except InferenceServerException as error:
            refusals.append((error, time.monotonic() - started))

    threads = [threading.Thread(target=call, args=(seed,)) for seed in range(40)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert len(videos) >= LIMIT
    assert len(videos) + len(refusals) == 40
    assert refusals, f"40 requests fitted into a server for {LIMIT}"
    for error, seconds in refusals:
        assert error.status() == "StatusCode.UNAVAILABLE"
        words = f"{LIMIT} requests are in flight, as many as the limit; retry after [0-9]+ s"
        assert re.fullmatch(words, error.message())
        assert seconds < 5


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

    assert len(errors) == 20 and all(errors)
    assert executions(tiny_server, "video_encoder")[0] - encoded >= 4


def direct_inputs(stage: str, **values):
    """Inputs of an internal stage, for clients that call it by itself."""
    return [infer_input(spec.name, values[spec.name], spec.dtype) for spec in STAGES[stage].inputs]


def test_denoiser_answers_with_an_error_when_its_graph_cannot_run(tiny_server):
    inputs = direct_inputs(
        "denoiser",
        LATENTS=np.zeros((1, 5, 4, 2, 2)),
        TIMESTEP=np.zeros((1, 1)),
        PROMPT_EMBEDS=np.zeros((1, 16, 12)),
        ATTENTION_MASK=np.ones((1, 16)),
    )
    with (
        InferenceServerClient(tiny_server.grpc_url) as client,
        pytest.raises(InferenceServerException, match="Got: 5 Expected: 16") as caught,
    ):
        client.infer("denoiser", inputs, client_timeout=30)

    assert "Traceback" not in caught.value.message()


@pytest.mark.parametrize(
    ("changes", "options", "message"),
    [
        ({"NUM_INFERENCE_STEPS": [[10**9]]}, {}, "NUM_INFERENCE_STEPS is 1000000000; the limits"),
        ({"NUM_FRAMES": [[10**9]]}, {}, "NUM_FRAMES is 1000000000; the limits are"),
        (
            {},
            {"sequence_id": 5, "sequence_start": True, "sequence_end": True},
            "sequence_end is set; video_diffusion takes requests without it",
        ),
    ],
    ids=["endless", "huge", "end of a sequence"],
)
def test_video_diffusion_refuses_when_called_by_itself_with_bad_input(
    tiny_server, changes, options, message
):
    values = {
        "PROMPT_EMBEDS": np.zeros((1, 2, 16, 12)),
        "ATTENTION_MASK": np.ones((1, 2, 16)),
        "SEED": [[1]],
        "NUM_INFERENCE_STEPS": [[4]],
        "GUIDANCE_SCALE": [[1.0]],
        "NUM_FRAMES": [[16]],
        "HEIGHT": [[64]],
        "WIDTH": [[64]],
        "PRIORITY_RANK": [[0]],
    }
    inputs = direct_inputs("video_diffusion", **{**values, **changes})
    with (
        InferenceServerClient(tiny_server.grpc_url) as client,
        pytest.raises(InferenceServerException, match=message),
    ):
        client.infer("video_diffusion", inputs, client_timeout=30, **options)
