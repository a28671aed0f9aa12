"""The repository served by plain `tritonserver`: clips are drawn, nothing else is promised."""

import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from tritonclient.grpc import InferenceServerClient
from tritonclient.utils import InferenceServerException

from reelserve.client import Client
from reelserve.pipeline.contract import STAGES
from tests.server.bare import bare_triton
from tests.server.grpc_requests import generate, infer_input

pytestmark = pytest.mark.server
REQUEST = {"prompt": "a red star", "seed": 3, "num_frames": 24}


@pytest.fixture(scope="module")
def bare(tiny_repository):
    with bare_triton(tiny_repository) as triton:
        yield triton


def test_clip_has_the_bytes_of_the_front_end(bare, tiny_server):
    video, info = generate(bare, **REQUEST)
    expected, expected_info = generate(tiny_server, **REQUEST)

    assert video == expected
    assert info["seconds"] == {}, "nobody tells what a stage takes"
    assert info == {**expected_info, "seconds": {}}
    with Client(bare.grpc_url) as client:
        (only,) = client.stream(REQUEST["prompt"], seed=3, num_frames=24)
        assert (only.kind, only.video.mp4, only.seconds) == ("clip", expected, 0)


def test_clips_that_are_drawn_together_are_those_drawn_alone(bare):
    seeds = range(6)
    alone = [generate(bare, **{**REQUEST, "seed": seed})[0] for seed in seeds]
    with ThreadPoolExecutor(6) as pool:
        together = pool.map(lambda seed: generate(bare, **{**REQUEST, "seed": seed})[0], seeds)
        assert list(together) == alone


def test_request_is_refused_in_our_words_when_a_value_is_out_of_range(bare):
    with pytest.raises(InferenceServerException, match="NUM_FRAMES is 18; it must be a multip"):
        generate(bare, **{**REQUEST, "num_frames": 18})


def test_ids_that_look_like_ours_are_ids(bare):
    """`reelserve-call:` marks what one stage asks another; keys have no folder here."""
    with InferenceServerClient(bare.grpc_url) as client:
        for request_id in ("0" * 32, "reelserve-call:" + "0" * 32, "../../etc"):
            result = client.infer(
                "text_to_video", [infer_input("PROMPT", "a star")], request_id=request_id
            )
            assert result.get_response().id == request_id
            assert result.as_numpy("VIDEO")[0][4:8] == b"ftyp"


def direct_inputs(stage, **values):
    return [infer_input(s.name, values[s.name], s.dtype) for s in STAGES[stage].inputs]


def test_denoiser_answers_with_an_error_when_its_graph_cannot_run(bare):
    inputs = direct_inputs(
        "denoiser",
        LATENTS=np.zeros((1, 5, 4, 2, 2)),
        TIMESTEP=np.zeros((1, 1)),
        PROMPT_EMBEDS=np.zeros((1, 16, 12)),
        ATTENTION_MASK=np.ones((1, 16)),
    )
    with (
        InferenceServerClient(bare.grpc_url) as client,
        pytest.raises(InferenceServerException, match="Got: 5 Expected: 16") as caught,
    ):
        client.infer("denoiser", inputs, client_timeout=30)

    assert "Traceback" not in caught.value.message()


LATENTS_REQUEST = {
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


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"NUM_INFERENCE_STEPS": [[10**9]]}, "NUM_INFERENCE_STEPS is 1000000000; the limits"),
        ({"NUM_FRAMES": [[10**9]]}, "NUM_FRAMES is 1000000000; the limits are"),
        ({"PRIORITY_RANK": [[2]]}, "PRIORITY_RANK is 2; the limits are 0 to 1"),
        ({"PROMPT_EMBEDS": np.zeros((1, 2, 9, 3))}, "denoiser"),
    ],
    ids=["endless", "huge", "rank", "embeddings of another checkpoint"],
)
def test_video_diffusion_refuses_bad_input_and_goes_on(bare, changes, message):
    with InferenceServerClient(bare.grpc_url) as client:
        with pytest.raises(InferenceServerException, match=message):
            inputs = direct_inputs("video_diffusion", **{**LATENTS_REQUEST, **changes})
            client.infer("video_diffusion", inputs, client_timeout=30)
        inputs = direct_inputs("video_diffusion", **LATENTS_REQUEST)
        result = client.infer("video_diffusion", inputs, client_timeout=30)
    assert result.as_numpy("LATENTS").shape == (1, 16, 4, 2, 2)


def test_video_diffusion_refuses_over_its_own_limit(bare):
    """What bounds memory where no front end does."""
    count = 40
    barrier, errors = threading.Barrier(count), []

    def call(seed):
        barrier.wait()
        try:
            generate(bare, **{**REQUEST, "seed": seed, "num_inference_steps": 50})
        except InferenceServerException as error:
            errors.append(error)

    with ThreadPoolExecutor(count) as pool:
        list(pool.map(call, range(count)))
    assert errors
    for error in errors:
        assert error.status() == "StatusCode.UNAVAILABLE"
        assert "24 requests are in flight, as many as the limit" in error.message()


def test_video_encoder_refuses_when_there_is_nothing_to_encode(bare):
    values = {**LATENTS_REQUEST, "FPS": [[8]]}
    inputs = [
        infer_input(spec.name, values[spec.name], spec.dtype)
        for spec in STAGES["video_encoder"].inputs
        if not spec.optional
    ]
    with (
        InferenceServerClient(bare.grpc_url) as client,
        pytest.raises(InferenceServerException, match="FRAMES is missing; it must hold 1 clip"),
    ):
        client.infer("video_encoder", inputs, client_timeout=30)
