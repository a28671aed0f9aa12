from __future__ import annotations

import asyncio
import json
import socket
import threading

import grpc
import numpy as np
import pytest
from tritonclient.grpc import service_pb2

from reelserve.client import (
    AsyncClient,
    Client,
    DeadlineExceededError,
    InternalError,
    InvalidArgumentError,
    NoServerError,
    RequestCancelledError,
)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def test_generate_sends_the_prompt_alone_when_no_option_is_given(fake_triton):
    with Client(fake_triton.url) as client:
        video = client.generate("a red circle")
    assert fake_triton.received() == {"PROMPT": b"a red circle"}
    assert fake_triton.requests[0].model_name == "text_to_video"
    assert video.mp4[4:8] == b"ftyp"
    assert video.info.seed == 7
    assert video.info.duration_s == 10.0


def test_generate_sends_every_option_as_its_tensor(fake_triton):
    with Client(fake_triton.url) as client:
        client.generate(
            "ein Kreis ○",
            negative_prompt="rain",
            seed=2**40,
            num_inference_steps=6,
            guidance_scale=2.3,
            num_frames=40,
            fps=np.int64(12),
            height=None,
            width=128,
        )
    assert fake_triton.received() == {
        "PROMPT": "ein Kreis ○".encode(),
        "NEGATIVE_PROMPT": b"rain",
        "SEED": 2**40,
        "NUM_INFERENCE_STEPS": 6,
        "GUIDANCE_SCALE": np.float32(2.3),
        "NUM_FRAMES": 40,
        "FPS": 12,
        "WIDTH": 128,
    }


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_frames": 2**40}, f"NUM_FRAMES is {2**40}, which INT32 does not hold; `capab"),
        ({"fps": 10**5000}, "FPS is a number of 16610 bits, which INT32 does not hold"),
        ({"seed": 2**63}, f"SEED is {2**63}; the limits are 0 to {2**63 - 1}"),
        ({"seed": -1}, f"SEED is -1; the limits are 0 to {2**63 - 1}"),
        ({"seed": 10**5000}, "SEED is a number of 16610 bits, which INT64 does not hold"),
        ({"num_inference_steps": 7.5}, "NUM_INFERENCE_STEPS is 7.5; it must be a whole number"),
        ({"fps": True}, "FPS is True; it must be a whole number"),
        ({"guidance_scale": "high"}, "GUIDANCE_SCALE is 'high'; it must be a number"),
        ({"negative_prompt": 5}, "NEGATIVE_PROMPT is 5; it must be a string"),
    ],
)
def test_generate_raises_before_sending_when_a_value_does_not_fit_its_tensor(
    fake_triton, options, message
):
    with Client(fake_triton.url) as client, pytest.raises(InvalidArgumentError) as caught:
        client.generate("a circle", **options)
    assert message in str(caught.value)
    assert isinstance(caught.value, ValueError)
    assert not fake_triton.requests


def test_generate_raises_when_the_prompt_is_no_utf8(fake_triton):
    with Client(fake_triton.url) as client, pytest.raises(InvalidArgumentError, match="position 2"):
        client.generate("a \udcff")
    assert not fake_triton.requests


def test_generate_raises_when_there_is_no_such_option(fake_triton):
    with (
        Client(fake_triton.url) as client,
        pytest.raises(TypeError, match=r"generate\(\) got an .* 'steps'"),
    ):
        client.generate("a circle", steps=4)


def test_generate_raises_no_server_when_nothing_listens():
    url = f"127.0.0.1:{free_port()}"
    with Client(url) as client, pytest.raises(NoServerError) as caught:
        client.generate("a circle")
    assert url in str(caught.value)
    assert "make serve" in str(caught.value)
    assert isinstance(caught.value, ConnectionError)


def test_generate_raises_no_server_when_the_host_is_unknown():
    with Client("no-such-host.invalid:8001") as client, pytest.raises(NoServerError):
        client.generate("a circle", timeout_s=30)


def test_generate_raises_no_server_when_something_else_listens():
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def answer_http() -> None:
            connection, _ = listener.accept()
            with connection:
                connection.recv(4096)
                connection.sendall(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n")

        thread = threading.Thread(target=answer_http)
        thread.start()
        with Client(f"127.0.0.1:{listener.getsockname()[1]}") as client:
            with pytest.raises(NoServerError):
                client.generate("a circle", timeout_s=30)
        thread.join()


def test_generate_raises_deadline_exceeded_when_the_server_is_slow(fake_triton):
    fake_triton.hold = threading.Event()
    with Client(fake_triton.url) as client, pytest.raises(DeadlineExceededError) as caught:
        client.generate("a circle", timeout_s=0.2)
    assert "timeout_s" in str(caught.value)
    assert isinstance(caught.value, TimeoutError)
    assert fake_triton.cancelled.wait(5)


def test_generate_uses_the_clients_timeout_when_it_has_none_of_its_own(fake_triton):
    fake_triton.hold = threading.Event()
    with Client(fake_triton.url, timeout_s=0.2) as client, pytest.raises(DeadlineExceededError):
        client.generate("a circle")


def test_generate_raises_cancelled_when_the_client_is_closed_meanwhile(fake_triton):
    fake_triton.hold = threading.Event()
    client = Client(fake_triton.url)
    closer = threading.Timer(0.3, client.close)
    closer.start()
    with pytest.raises(RequestCancelledError):
        client.generate("a circle")
    closer.join()


@pytest.mark.parametrize(
    "outputs",
    [
        {},
        {"VIDEO": b"mp4"},
        {"VIDEO": b"mp4", "INFO": b"not json"},
        {"VIDEO": b"mp4", "INFO": b"[1]"},
        {"VIDEO": b"mp4", "INFO": json.dumps({"seed": 1}).encode()},
    ],
    ids=["nothing", "no-info", "no-json", "no-object", "members-missing"],
)
def test_generate_raises_internal_when_the_answer_cannot_be_read(fake_triton, outputs):
    fake_triton.outputs = outputs
    with Client(fake_triton.url) as client, pytest.raises(InternalError, match="INFO"):
        client.generate("a circle")


def test_generate_takes_a_clip_larger_than_the_default_message_limit_of_grpc(fake_triton):
    fake_triton.outputs["VIDEO"] = bytes(5 * 2**20)
    with Client(fake_triton.url) as client:
        assert len(client.generate("a circle").mp4) == 5 * 2**20


def test_async_generate_answers_several_requests_at_once(fake_triton):
    async def three() -> list[int]:
        async with AsyncClient(fake_triton.url) as client:
            videos = await asyncio.gather(*(client.generate("a", seed=n) for n in range(3)))
            return [video.info.seed for video in videos]

    assert asyncio.run(three()) == [7, 7, 7]
    assert sorted(fake_triton.received(n)["SEED"] for n in range(3)) == [0, 1, 2]


def test_async_generate_raises_the_same_errors(fake_triton):
    fake_triton.status, fake_triton.details = grpc.StatusCode.INVALID_ARGUMENT, "FPS is 0"

    async def one() -> None:
        async with AsyncClient(fake_triton.url) as client:
            await client.generate("a circle")

    with pytest.raises(InvalidArgumentError, match="FPS is 0"):
        asyncio.run(one())


def test_async_generate_cancels_the_request_when_its_task_is_cancelled(fake_triton):
    fake_triton.hold = threading.Event()

    async def one() -> None:
        async with AsyncClient(fake_triton.url) as client:
            await asyncio.wait_for(client.generate("a circle"), 0.3)

    with pytest.raises(asyncio.TimeoutError):
        asyncio.run(one())
    assert fake_triton.cancelled.wait(5)


def test_is_ready_tells_a_ready_model_from_others(fake_triton):
    with Client(fake_triton.url) as client:
        assert client.is_ready()
        fake_triton.ready = False
        assert not client.is_ready()
    with Client(f"127.0.0.1:{free_port()}") as client:
        assert not client.is_ready()


def test_statistics_counts_a_batch_once(fake_triton):
    model = service_pb2.ModelStatistics(name="denoiser", execution_count=2)
    model.inference_stats.success.count = 5
    model.inference_stats.queue.ns = 500_000_000
    for size, seconds in ((1, 1), (4, 2)):
        batch = model.batch_stats.add(batch_size=size)
        batch.compute_infer.ns = seconds * 10**9
        batch.compute_input.ns = 10**8
    fake_triton.statistics = [model]
    with Client(fake_triton.url) as client:
        denoiser = client.statistics()["denoiser"]
    assert (denoiser.requests, denoiser.executions, denoiser.failures) == (5, 2, 0)
    assert denoiser.compute_s == pytest.approx(3.2)
    assert denoiser.queue_s == 0.5
    assert (denoiser - denoiser).compute_s == 0
