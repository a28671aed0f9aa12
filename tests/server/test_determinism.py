"""Same seed, same bytes: alone, in any batch, and joining a batch that is under way."""

import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.server.grpc_requests import digest, executions, generate

pytestmark = pytest.mark.server

REQUESTS = [
    {"prompt": "a red star", "seed": 1},
    {"prompt": "a blue circle spins", "seed": 2, "negative_prompt": "red"},
    {"prompt": "a green square", "seed": 3, "guidance_scale": 1.0},
    {"prompt": "the plain sea", "seed": 4, "num_frames": 48, "guidance_scale": 4.5},
]
STEPS = 25


@pytest.fixture(scope="module")
def alone(tiny_server):
    """What each request gives when nothing else runs."""
    return [digest(tiny_server, num_inference_steps=STEPS, **fields) for fields in REQUESTS]


def test_video_differs_when_the_request_differs(alone):
    assert len(set(alone)) == len(REQUESTS)


def test_video_is_the_same_when_repeated(tiny_server, alone):
    again = [digest(tiny_server, num_inference_steps=STEPS, **fields) for fields in REQUESTS]

    assert again == alone


@pytest.mark.parametrize("count", [2, 4])
def test_video_is_the_same_when_batched(tiny_server, alone, count):
    before = executions(tiny_server, "denoiser")
    with ThreadPoolExecutor(count) as pool:
        together = list(
            pool.map(
                lambda fields: digest(tiny_server, num_inference_steps=STEPS, **fields),
                REQUESTS[:count],
            )
        )
    rows, batches = (
        after - start
        for after, start in zip(executions(tiny_server, "denoiser"), before, strict=True)
    )

    assert together == alone[:count]
    assert rows > batches, "the requests were not batched"


def test_video_is_the_same_when_joining_mid_run(tiny_server, alone):
    other = {**REQUESTS[1], "num_inference_steps": 50, "num_frames": 64}
    reference = digest(tiny_server, **other)
    for _ in range(5):
        start = executions(tiny_server, "denoiser")[1]
        with ThreadPoolExecutor(2) as pool:
            running = [pool.submit(digest, tiny_server, **other) for _ in range(2)]
            while executions(tiny_server, "denoiser")[1] < start + 5:
                time.sleep(0.002)
            joined = digest(tiny_server, num_inference_steps=STEPS, **REQUESTS[0])
            overlapped = not all(future.done() for future in running)
            others = [future.result() for future in running]

        assert joined == alone[0]
        assert others == [reference, reference]
        if overlapped:
            return
    pytest.fail("no request joined another one in five attempts")


def test_seed_is_drawn_and_reported_when_absent(tiny_server):
    video, info = generate(tiny_server, prompt="a red star")
    other, other_info = generate(tiny_server, prompt="a red star")

    assert info["seed"] != other_info["seed"]
    assert video != other
    assert generate(tiny_server, prompt="a red star", seed=info["seed"])[0] == video


@pytest.mark.parametrize(
    "change",
    [
        {"prompt": "a blue star"},
        {"negative_prompt": "blue"},
        {"seed": 8},
        {"num_inference_steps": 5},
        {"guidance_scale": 3.0},
        {"num_frames": 20},
        {"fps": 9},
        {"height": 96},
        {"width": 96},
    ],
    ids=str,
)
def test_video_changes_when_a_field_changes(tiny_server, change):
    base = {"prompt": "a red star", "seed": 7}

    assert generate(tiny_server, **base)[0] != generate(tiny_server, **{**base, **change})[0]
