"""A front end whose Tritons answer as a test tells them to."""

from __future__ import annotations

import asyncio
import functools
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import numpy as np

from reelserve.server.frontend.admission import TritonLoad
from reelserve.server.frontend.call_errors import unavailable
from reelserve.server.frontend.connections import Connections
from reelserve.server.frontend.doors import Doors
from reelserve.server.frontend.frontend import FrontEnd, Ports
from reelserve.server.frontend.messages import InferRequest, answer
from reelserve.server.frontend.service import Service, ServiceSettings
from reelserve.server.progress import ProgressFolder
from tests.server.tiny_repository import SPEC, tiny_tokenizer

TIMEOUT_S = 30
VIDEO = b"mp4"
INFO = {"num_frames": 16, "fps": 8, "seconds": {}}


def asynchronous(test: Callable[..., Awaitable[None]]) -> Callable[..., None]:
    """Runs a test in an event loop, for a while at most."""

    @functools.wraps(test)
    def run(*args: Any, **fixtures: Any) -> None:
        asyncio.run(asyncio.wait_for(test(*args, **fixtures), TIMEOUT_S))

    return run


async def until(condition: Callable[[], object]) -> None:
    """Waits for something; `asynchronous` bounds it."""
    while not condition():
        await asyncio.sleep(0.005)


class FakeUpstream:
    """A Triton whose calls wait until a test answers them."""

    def __init__(self, name: str = "triton", *, ready: bool = True) -> None:
        self.load = TritonLoad(name, ready)
        self.metrics_socket = Path("/no/such/socket")
        self.calls: list[tuple[Any, asyncio.Future[Any]]] = []
        self.replies: dict[str, bytes] = {}

    async def infer(self, request: Any) -> Any:
        future = asyncio.get_running_loop().create_future()
        self.calls.append((request, future))
        return await future

    async def pass_on(self, method: str, raw: bytes) -> bytes:
        return self.replies[method]

    def starting(self) -> Exception:
        return unavailable("the server is starting", 5)

    @property
    def keys(self) -> list[str]:
        """Keys of the clips, in the order of their calls."""
        return [request.id for request, _ in self.calls]

    def draw(self, number: int = -1, video: bytes = VIDEO, **info: object) -> None:
        """Answers a call with a clip."""
        content = {"VIDEO": video, "INFO": json.dumps({**INFO, **info}).encode()}
        self.calls[number][1].set_result(answer(content, ""))

    def fail(self, error: Exception, number: int = -1) -> None:
        """Answers a call with an error."""
        self.calls[number][1].set_exception(error)


class Rig:
    """A service before fake Tritons."""

    def __init__(
        self,
        folder: Path,
        *,
        limit: int = 2,
        together: int = 4,
        share_s: float = 0,
        tritons: int = 1,
    ) -> None:
        stage = folder / "prompt_processor"
        stage.mkdir()
        SPEC.save(stage)
        tiny_tokenizer().save(str(stage / "tokenizer.json"))
        self.folder = folder / "progress"
        self.folder.mkdir()
        self.progress = ProgressFolder(self.folder)
        self.upstreams = [FakeUpstream(f"gpu{number}") for number in range(tritons)]
        settings = ServiceSettings(limit, together, share_s)
        self.service = Service(stage, settings, self.upstreams, self.progress)

    @property
    def upstream(self) -> FakeUpstream:
        return self.upstreams[0]

    @property
    def in_flight(self) -> int:
        return int(self.metric("requests_in_flight"))

    def metric(self, name: str, **labels: str) -> float:
        """A value that Prometheus would get."""
        value = self.service.recorder.registry.get_sample_value(f"reelserve_{name}", labels)
        assert value is not None, name
        return value

    def outcomes(self) -> dict[str, float]:
        """How requests have ended, those that have."""
        outcomes = ("ok", "invalid", "refused", "cancelled", "failed")
        labels = {"model": "text_to_video"}
        counts = {o: self.metric("requests_total", outcome=o, **labels) for o in outcomes}
        return {outcome: count for outcome, count in counts.items() if count}

    def ask(self, left_s: float = float("inf"), **fields: Any) -> asyncio.Task[Any]:
        """Sends a request as a unary call does."""

        async def call() -> Any:
            clip = self.service.begin(request(**fields), left_s)
            return await self.service.wait(clip, left_s, clip.accepted)

        return asyncio.create_task(call())

    async def drawing(self, left_s: float = float("inf"), **fields: Any) -> asyncio.Task[Any]:
        """The same; returns when a Triton has it."""
        before = self.calls()
        task = self.ask(left_s, **fields)
        await until(lambda: self.calls() > before or task.done())
        return task

    def calls(self) -> int:
        """Calls of all Tritons."""
        return sum(len(upstream.calls) for upstream in self.upstreams)

    @asynccontextmanager
    async def serving(
        self, doors: Doors | None = None, connections: Connections | None = None
    ) -> AsyncIterator[FrontEnd]:
        """Its ports."""
        ports, doors = Ports("127.0.0.1", 0, 0, 0), doors or Doors()
        front_end = FrontEnd(self.service, ports, doors, connections or Connections())
        await front_end.start()
        try:
            yield front_end
        finally:
            self.service.fail_all()
            await front_end.close()


def request(**fields: Any) -> InferRequest:
    """A request that was read; fields in lower case."""
    kinds = {"seed": np.int64, "prompt": object, "negative_prompt": object, "priority": object}
    values = {"prompt": b"a red star", **fields}
    tensors = {k.upper(): np.array([v], kinds.get(k, np.int32)) for k, v in values.items()}
    return InferRequest("mine", tensors, (), None, progress=False)
