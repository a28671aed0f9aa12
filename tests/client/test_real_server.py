"""The client against NVIDIA's server: the words and statuses that `_exceptions` relies on."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest

from reelserve.client import (
    AccessDeniedError,
    Client,
    DeadlineExceededError,
    InvalidArgumentError,
    NoServerError,
    UnavailableError,
)
from reelserve.pipeline.contract import PUBLIC_MODEL, STAGES
from reelserve.server.launch.running_server import Server
from reelserve.server.launch.tritons import ServeOptions
from reelserve.tools.faults.load import PROMPT
from reelserve.tools.faults.replacement import constant_load, wait_until_drawn
from tests.server.test_config import config_of, parameter
from tests.server.test_streaming import metrics, wait_until_idle

pytestmark = pytest.mark.server
LIMIT = parameter(config_of("text_to_video"), "max_requests_in_flight")
LONG = {"num_inference_steps": 50, "num_frames": 64}
"""A request of the tiny repository that takes long enough to be interrupted."""


def test_generate_gives_a_clip_that_is_the_same_again(tiny_server, tmp_path):
    with Client(tiny_server.grpc_url) as client:
        assert client.is_ready()
        first, again = (client.generate("a red circle", seed=3, fps=12) for _ in range(2))
    assert first.mp4 == again.mp4
    assert (first.info.seed, first.info.fps, first.info.checkpoint) == (3, 12, "tiny")
    assert first.info.seconds["total"] > 0
    assert first.save(tmp_path / "clip.mp4").read_bytes()[4:8] == b"ftyp"


@pytest.mark.parametrize(
    ("prompt", "options", "message"),
    [
        (" ", {}, "PROMPT is ' '"),
        ("a", {"num_frames": 18}, "NUM_FRAMES is 18; it must be a multiple of 4"),
        ("a", {"guidance_scale": float("nan")}, "GUIDANCE_SCALE is nan"),
        ("a", {"guidance_scale": 1e300}, "GUIDANCE_SCALE is inf"),
        ("a", {"seed": -1}, "SEED is -1"),
    ],
)
def test_generate_raises_invalid_argument_with_the_servers_words(
    tiny_server, prompt, options, message
):
    with Client(tiny_server.grpc_url) as client:
        with pytest.raises(InvalidArgumentError) as caught:
            client.generate(prompt, **options)
    assert str(caught.value).startswith(message)


def test_generate_raises_access_denied_when_the_model_is_another_one(tiny_server):
    with Client(tiny_server.grpc_url, model="no_such_model") as client:
        assert not client.is_ready()
        with pytest.raises(AccessDeniedError, match="no_such_model"):
            client.generate("a")


def test_generate_raises_no_server_when_the_port_is_the_http_one(tiny_server):
    with Client(tiny_server.http_url) as client, pytest.raises(NoServerError):
        client.generate("a")


def test_generate_raises_deadline_exceeded_and_the_server_goes_on(tiny_server):
    with Client(tiny_server.grpc_url) as client:
        with pytest.raises(DeadlineExceededError):
            client.generate("a", timeout_s=0.01, **LONG)
        assert client.generate("a", seed=1).info.seed == 1


def test_no_clip_is_lost_while_a_server_is_replaced_and_dies(tiny_server, tiny_repository):
    """A client of one server is told of its death; one of two, with a retry, sees nothing of it."""
    options = ServeOptions(tiny_repository)
    with contextlib.ExitStack() as stack:
        old = stack.enter_context(Server(options))
        urls = [tiny_server.grpc_url, old.grpc_url]
        clip = {"seed": 2, "num_inference_steps": 8, "num_frames": 16}
        reference = stack.enter_context(Client(old.grpc_url)).generate(PROMPT, **clip).mp4

        with Client(urls) as client, constant_load(client, reference, clip, 4) as load:
            wait_until_drawn(old, 2)
            wait_until_drawn(tiny_server, 2)
            os.kill(old.pid, signal.SIGTERM)
            assert old.wait(60) == 0
            new = Server(replace(options, grpc_port=old.running.grpc_port))
            stack.enter_context(new)
            wait_until_drawn(new, 2)
        assert set(+load.seen) == {"clip"}

        with (
            Client(urls, max_retries=1) as client,
            constant_load(client, reference, clip, 4) as load,
            Client(new.grpc_url) as its_own,
            its_own.stream("a", num_inference_steps=1000) as stream,
        ):
            next(stream)
            wait_until_drawn(new, 1)
            os.kill(new.pid, signal.SIGKILL)
            with pytest.raises(NoServerError):
                list(stream)
            wait_until_drawn(tiny_server, 4)
        assert set(+load.seen) == {"clip"}


def test_statistics_count_every_stage_of_a_clip(tiny_server):
    wait_until_idle(tiny_server)
    with Client(tiny_server.grpc_url) as client:
        before = client.statistics()
        client.generate("a", num_inference_steps=3)

        def counted() -> dict[str, int]:
            now = client.statistics()
            return {name: (now[name] - before[name]).requests for name in now}

        expected = {**dict.fromkeys((*STAGES, PUBLIC_MODEL), 1), "denoiser": 3}
        # Triton counts a stage after it has passed its answer on.
        wait_until(lambda: counted() == expected)


def test_generate_raises_invalid_argument_when_the_prompt_is_a_book(tiny_server):
    with Client(tiny_server.grpc_url) as client:
        for prompt, words in (("x" * 101, "PROMPT holds 101 characters"), ("x" * 2**20, "larger")):
            with pytest.raises(InvalidArgumentError, match=words):
                client.generate(prompt)


@contextlib.contextmanager
def full(server: Server) -> Iterator[None]:
    """Long clips in every place, cancelled at the end."""
    wait_until_idle(server)
    options = {**LONG, "num_inference_steps": 150, "height": 128, "width": 128}
    with Client(server.grpc_url) as client, contextlib.ExitStack() as streams:
        # From these the server learns what such a clip costs, and asks for short waits.
        for seed in range(3):
            client.generate("a", seed=seed, **options)
        for seed in range(LIMIT):
            streams.enter_context(client.stream("a", seed=seed, **options))
        wait_until(lambda: metrics(server)["reelserve_requests_in_flight"] == LIMIT)
        yield


def wait_until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


@pytest.mark.parametrize("method", ["generate", "stream"])
def test_a_refusal_says_when_to_retry_and_waits_for_no_clip(tiny_server, method):
    with full(tiny_server), Client(tiny_server.grpc_url) as client:
        with pytest.raises(UnavailableError) as caught:
            list(getattr(client, method)("a"))
        assert metrics(tiny_server)["reelserve_requests_in_flight"] == LIMIT
    assert caught.value.retry_after_s >= 1


@pytest.mark.parametrize("method", ["generate", "stream"])
def test_refused_requests_are_all_answered_in_the_end_and_none_twice(tiny_server, method):
    count = LIMIT + 4

    def draw(seed: int) -> int:
        with Client(tiny_server.grpc_url, max_retries=20, timeout_s=300) as client:
            answer = getattr(client, method)("a", seed=seed, num_inference_steps=2)
            return (list(answer)[-1].video if method == "stream" else answer).info.seed

    def ended(outcome: str) -> float:
        name = f'reelserve_requests_total{{model="text_to_video",outcome="{outcome}"}}'
        return metrics(tiny_server)[name]

    with ThreadPoolExecutor(count) as pool:
        with full(tiny_server):
            before = {outcome: ended(outcome) for outcome in ("ok", "refused", "failed")}
            seeds = [pool.submit(draw, seed) for seed in range(count)]
            wait_until(lambda: ended("refused") > before["refused"])
        assert [seed.result() for seed in seeds] == list(range(count))

    wait_until_idle(tiny_server)
    assert ended("ok") - before["ok"] == count
    assert ended("failed") == before["failed"]
