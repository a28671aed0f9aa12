"""Seconds from the moment that a client leaves until its slot is free, for every way to leave."""

from __future__ import annotations

import contextlib
import json
import random
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

from reelserve.client import Client, GenerateOptions, ReelserveError
from reelserve.pipeline.contract import PUBLIC_MODEL
from reelserve.tools.bench.cpu_command import PROMPT
from reelserve.tools.bench.metrics_poll import MetricsPoll

ALLOWED_S = 0.1
"""Allowance over the seconds of one denoising step."""
LEFT_WITHIN = 0.75
"""Share of the steps within which a clip is left, so that it is still denoised then."""
PACE_STEPS = 2
ATTEMPTS = 20
"""Tries of a run, since a clip may have ended its steps when its client leaves."""
DIGITS = 4
UNARY, STREAMED = PUBLIC_MODEL, f"{PUBLIC_MODEL}, stream"
METHODS = {UNARY: "generate", STREAMED: "stream"}
"""Name of a call in the results, and the client's method that makes it."""
PROGRAM = """
import json, sys
from reelserve.client import Client
list(getattr(Client(sys.argv[1]), sys.argv[2])(sys.argv[3], **json.loads(sys.argv[4])))
"""

Leave = Callable[[], float]
"""Leaves a request; gives the moment from which nobody waits for it."""
Start = Callable[[str, GenerateOptions], AbstractContextManager[Leave]]
"""Sends a request to the server at `host:port`."""


@dataclass(frozen=True)
class Way:
    """A way to leave a request.

    Args:
        model: What was asked, see `METHODS`.
        how: In words.
        start: Sends a request to a server and gives how to leave it.
        by_deadline: Whether `timeout_s` decides when.
    """

    model: str
    how: str
    start: Start
    by_deadline: bool = False


@dataclass(frozen=True)
class Pace:
    """How fast the server is.

    Args:
        before_s: Seconds from sending a request to its first denoising step.
        step_s: Seconds of a step.
    """

    before_s: float
    step_s: float


@dataclass(frozen=True)
class Departure:
    """One run.

    Args:
        seconds: From leaving until the slot was free.
        step_s: Seconds of the denoising step that the clip was left in.
    """

    seconds: float
    step_s: float


@contextlib.contextmanager
def closed_stream(url: str, options: GenerateOptions) -> Iterator[Leave]:
    """A stream that is closed."""
    with Client(url) as client, client.stream(PROMPT, **options) as stream:
        yield lambda: _now_and(stream.close)


@contextlib.contextmanager
def cancelled_call(url: str, options: GenerateOptions) -> Iterator[Leave]:
    """A unary call that ends with its client."""
    with _calling(url, "generate", options) as client:
        yield lambda: _now_and(client.close)


def killed_process(method: str) -> Start:
    """A client whose process is killed."""

    @contextlib.contextmanager
    def start(url: str, options: GenerateOptions) -> Iterator[Leave]:
        command = [sys.executable, "-c", PROGRAM, url, method, PROMPT, json.dumps(options)]
        with subprocess.Popen(command, stderr=subprocess.DEVNULL) as process:
            try:
                yield lambda: _now_and(process.kill)
            finally:
                process.kill()

    return start


def passed_deadline(method: str) -> Start:
    """A call whose `timeout_s` passes."""

    @contextlib.contextmanager
    def start(url: str, options: GenerateOptions) -> Iterator[Leave]:
        timeout_s = options["timeout_s"]
        assert timeout_s is not None, "the caller sets it"
        deadline = time.monotonic() + float(timeout_s)

        def leave() -> float:
            time.sleep(max(0.0, deadline - time.monotonic()))
            return deadline

        with _calling(url, method, options):
            yield leave

    return start


def all_ways() -> list[Way]:
    """Every way to leave a unary call and a stream."""
    return [
        *(Way(m, "deadline passed", passed_deadline(METHODS[m]), True) for m in METHODS),
        Way(STREAMED, "stream closed", closed_stream),
        Way(UNARY, "call cancelled", cancelled_call),
        *(Way(m, "client killed", killed_process(METHODS[m])) for m in METHODS),
    ]


def measure_pace(url: str, poll: MetricsPoll, options: GenerateOptions) -> Pace:
    """Leaves a clip after some steps; the first one of a server is slower than the next ones."""
    before = poll.until(lambda now: now.idle)
    started = time.monotonic()
    with closed_stream(url, options) as leave:
        first = poll.until(lambda now: now.steps > before.steps)
        last = poll.until(lambda now: now.steps >= first.steps + PACE_STEPS)
        leave()
    poll.until(lambda now: now.idle)
    step_s = (last.at - first.at) / (last.steps - first.steps)
    return Pace(max(0.0, first.at - started - step_s), step_s)


def measure_way(
    way: Way, url: str, poll: MetricsPoll, options: GenerateOptions, runs: int, pace: Pace
) -> dict[str, Any]:
    """Leaves a clip `runs` times, each time at a random point of its denoising.

    Args:
        way: How.
        url: `host:port` of the server, which nobody else uses.
        poll: Readings of its metrics.
        options: Fields of the request, the number of steps among them.
        runs: Times.
        pace: How fast such a clip is drawn; measured anew where a clip is missed.

    Returns:
        Seconds until the slot was free, those of the step that each clip was left in, and how
        many runs were within that step and `ALLOWED_S`.

    Raises:
        TimeoutError: If a slot does not come free.
    """
    departures = []
    for _ in range(runs):
        for _ in range(ATTEMPTS):
            departure = _leave_once(way, url, poll, options, pace)
            if departure is not None:
                departures.append(departure)
                break
            # The machine may be busier or quieter than when it was measured.
            pace = measure_pace(url, poll, options)
        else:
            raise TimeoutError(f"{way.how}: no clip of {way.model} was left while it was denoised")
    return _summary(way, departures)


def _leave_once(
    way: Way, url: str, poll: MetricsPoll, options: GenerateOptions, pace: Pace
) -> Departure | None:
    """Leaves one clip; None if it was not in denoising then."""
    steps = options["num_inference_steps"]
    assert steps is not None, "the caller sets it"
    point = random.uniform(1, max(1, LEFT_WITHIN * steps))
    timeout_s = pace.before_s + point * pace.step_s
    before = poll.until(lambda now: now.idle)
    if way.by_deadline:
        options = {**options, "timeout_s": timeout_s}
    with way.start(url, options) as leave:
        if way.by_deadline:
            poll.until(lambda now: now.at >= before.at + timeout_s)
        else:
            poll.until(lambda now: now.steps >= before.steps + int(point))
            time.sleep(point % 1 * pace.step_s)
        last = poll.read()
        left = leave()
        freed = poll.until(lambda now: now.at > left and now.idle)
    if not before.steps < freed.steps < before.steps + steps:
        return None
    ended = freed.steps - last.steps
    # The one that it was left in; two, if the next one began before that was noticed.
    step_s = (freed.steps_s - last.steps_s) / ended if ended else pace.step_s
    return Departure(freed.at - left, step_s)


def _summary(way: Way, departures: Sequence[Departure]) -> dict[str, Any]:
    seconds = [one.seconds for one in departures]
    steps = [one.step_s for one in departures]
    return {
        "model": way.model,
        "how": way.how,
        "runs_s": [round(value, DIGITS) for value in seconds],
        "steps_s": [round(value, DIGITS) for value in steps],
        "median_s": round(statistics.median(seconds), DIGITS),
        "max_s": round(max(seconds), DIGITS),
        "step_median_s": round(statistics.median(steps), DIGITS),
        "step_max_s": round(max(steps), DIGITS),
        "max_over_step_s": round(max(one.seconds - one.step_s for one in departures), DIGITS),
        "within_bound": sum(one.seconds <= one.step_s + ALLOWED_S for one in departures),
    }


@contextlib.contextmanager
def _calling(url: str, method: str, options: GenerateOptions) -> Iterator[Client]:
    """A client in whose thread a call runs; how that ends is of no interest."""

    def call(client: Client) -> None:
        with contextlib.suppress(ReelserveError):
            answer = getattr(client, method)(PROMPT, **options)
            if method == "stream":
                list(answer)

    # The client is closed before the thread is waited for.
    with ThreadPoolExecutor(1) as pool, Client(url) as client:
        pool.submit(call, client)
        yield client


def _now_and(leave: Callable[[], object]) -> float:
    now = time.monotonic()
    leave()
    return now
