"""Requests in flight while something breaks, what became of them, and when it works again."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from concurrent.futures import TimeoutError as FutureTimeoutError
from contextlib import contextmanager
from functools import partial

from reelserve.client import Client, GenerateOptions, ReelserveError, Stream, UnavailableError
from reelserve.tools.bench.metrics_poll import MetricsPoll, Reading

PROMPT = "a large yellow star spins on a starry night"
CLIP: GenerateOptions = {"seed": 1, "num_frames": 16, "num_inference_steps": 20}
"""Short, with many steps: there is time to break something while it is denoised."""
SLOW_CLIP: GenerateOptions = {**CLIP, "num_inference_steps": 50}
LARGE_CLIP: GenerateOptions = {**SLOW_CLIP, "num_frames": 64, "height": 128, "width": 128}
"""Where none may end before something breaks, on the fastest server and the busiest machine."""
OTHERS = 3
BREAK_AT_STEP = 3
"""Step of a stream at which something is broken: the requests beside it are denoised then."""
ANSWER_TIMEOUT_S = 300.0
"""Clips in every place take minutes on a slow machine."""
FILL_ATTEMPTS = 20
RECOVERY_TIMEOUT_S = 60.0
POLL_S = 0.1
DIGITS = 2
CLIP_OUTCOME, OTHER_CLIP, NOTHING = "clip", "other clip", "nothing"
REFUSED = "UnavailableError"
"""Outcome of a refusal that says when to try again."""


@contextmanager
def under_load(
    client: Client, others: int = OTHERS, clip: GenerateOptions = CLIP
) -> Iterator[list[Future[bytes]]]:
    """Requests in flight while the block runs, in the denoiser when it begins.

    Args:
        client: Sends them.
        others: Requests beside a stream, which is the first of the futures.
        clip: What each asks for.

    Raises:
        ReelserveError: If the stream ends before the block may begin.
    """
    stream = client.stream(PROMPT, **clip)
    next(stream)
    pool = ThreadPoolExecutor(others + 1)
    futures = [pool.submit(draw, client, clip) for _ in range(others)]
    # A loop over the stream would cancel it when it is left.
    while (next(stream).step or 0) < BREAK_AT_STEP:
        pass
    try:
        yield [pool.submit(_last_mp4, stream), *futures]
    finally:
        pool.shutdown(wait=False, cancel_futures=True)


@contextmanager
def filled(client: Client, poll: MetricsPoll) -> Iterator[list[Future[bytes]]]:
    """A `SLOW_CLIP` in every place while the block runs.

    Args:
        client: Client of an idle server, which nobody else uses.
        poll: Readings of its metrics.

    Raises:
        TimeoutError: If the places do not fill.
    """
    limit = int(poll.until(lambda now: now.idle).limit)
    pool = ThreadPoolExecutor(limit)
    try:
        for _ in range(FILL_ATTEMPTS):
            futures = [pool.submit(draw, client, SLOW_CLIP) for _ in range(limit)]
            # Clips of tiny graphs may end before the last one is there.
            if poll.until(partial(_full_or_over, limit, futures)).in_flight == limit:
                break
        else:
            raise TimeoutError(f"{limit} clips were not in flight at once")
        yield futures
    finally:
        pool.shutdown(wait=False, cancel_futures=True)


def _full_or_over(limit: int, futures: list[Future[bytes]], now: Reading) -> bool:
    return now.in_flight == limit or all(future.done() for future in futures)


def draw(client: Client, clip: GenerateOptions = CLIP) -> bytes:
    """The MP4 of the clip that everything is compared with, or of another one."""
    return client.generate(PROMPT, **clip).mp4


def _last_mp4(stream: Stream) -> bytes:
    videos = [event.video.mp4 for event in stream if event.video is not None]
    return videos[-1] if videos else b""


def outcomes(futures: list[Future[bytes]], reference: bytes) -> Counter[str]:
    """What requests got: `clip`, `other clip`, `nothing` in time, or the name of their error.

    Args:
        futures: Each gives an MP4.
        reference: The right one; empty where any is.
    """
    found: Counter[str] = Counter()
    deadline = time.monotonic() + ANSWER_TIMEOUT_S
    for future in futures:
        try:
            mp4 = future.result(max(0.0, deadline - time.monotonic()))
            found[CLIP_OUTCOME if mp4 == reference or not reference else OTHER_CLIP] += 1
        except ReelserveError as error:
            found[error_outcome(error)] += 1
        except FutureTimeoutError:
            found[NOTHING] += 1
    return found


def error_outcome(error: ReelserveError) -> str:
    """Name of an error; a refusal without a hint when to try again is told apart."""
    without = isinstance(error, UnavailableError) and error.retry_after_s is None
    return f"{type(error).__name__}{' without a hint' if without else ''}"


def recovery(
    client: Client, since: float, reference: bytes, meanwhile: Counter[str] | None = None
) -> float | None:
    """Seconds from `since` until a request is sent that gives the clip again; None if none does.

    Args:
        client: Client of the server.
        since: When it broke, on the monotonic clock.
        reference: The right clip.
        meanwhile: Takes what the requests before got.
    """
    while time.monotonic() - since < RECOVERY_TIMEOUT_S:
        asked = time.monotonic()
        try:
            outcome = CLIP_OUTCOME if draw(client) == reference else OTHER_CLIP
        except ReelserveError as error:
            outcome = error_outcome(error)
        if outcome == CLIP_OUTCOME:
            # What the clip itself takes is no part of it.
            return round(asked - since, DIGITS)
        if meanwhile is not None:
            meanwhile[outcome] += 1
        time.sleep(POLL_S)
    return None
