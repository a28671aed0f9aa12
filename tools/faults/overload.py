"""Sends a server many times what it has places for."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from functools import partial
from pathlib import Path

from reelserve.client import AsyncClient, Client, ReelserveError
from reelserve.loadtest.figures import percentile
from reelserve.server.launch.running_server import Server
from reelserve.server.launch.tritons import ServeOptions
from reelserve.tools.bench.metrics_poll import MetricsPoll
from reelserve.tools.faults.calls import in_own_process
from reelserve.tools.faults.fault import Fault, Trial, all_among, counted, recovers
from reelserve.tools.faults.load import (
    ANSWER_TIMEOUT_S,
    CLIP,
    CLIP_OUTCOME,
    NOTHING,
    OTHER_CLIP,
    PROMPT,
    REFUSED,
    draw,
    error_outcome,
    recovery,
)

FACTORS = (10, 50)
SPREAD_S = 3.0
"""Time over which the requests are spread."""


def overloads() -> list[Trial]:
    """Ten and fifty times the places."""
    return [Trial(f"overload-{factor}", partial(_overload, factor=factor)) for factor in FACTORS]


def _overload(repository: Path, factor: int) -> Fault:
    with (
        Server(ServeOptions(repository)) as server,
        Client(server.grpc_url) as client,
        MetricsPoll(server.metrics_url) as poll,
    ):
        reference, limit = draw(client), int(poll.read().limit)
        answers = in_own_process(_requests, server.grpc_url, factor * limit, reference)
        recovered_s = recovery(client, time.monotonic(), reference)
    seen = Counter(outcome for outcome, _ in answers)
    refused_s = sorted(seconds for outcome, seconds in answers if outcome == REFUSED)
    p50_ms, p99_ms = (1e3 * percentile(refused_s, percent) for percent in (50, 99))
    return Fault(
        f"{factor * limit} requests within {SPREAD_S:g} s for {limit} places",
        "every request gets its clip or UnavailableError with a hint",
        f"{counted(seen)}; refusals took {p50_ms:.1f} ms, p99 {p99_ms:.1f} ms",
        recovered_s,
        seen[NOTHING],
        all_among(seen, (CLIP_OUTCOME, REFUSED)) and bool(refused_s) and recovers(recovered_s),
    )


async def _requests(url: str, count: int, reference: bytes) -> list[tuple[str, float]]:
    """How each request ended, and after how many seconds."""
    async with AsyncClient(url) as client:
        # The first call of a process takes long.
        await client.generate(PROMPT, **CLIP)

        async def request(number: int) -> tuple[str, float]:
            await asyncio.sleep(SPREAD_S * number / count)
            sent = time.monotonic()
            return await _outcome(client, reference), time.monotonic() - sent

        return await asyncio.gather(*(request(number) for number in range(count)))


async def _outcome(client: AsyncClient, reference: bytes) -> str:
    try:
        video = await asyncio.wait_for(client.generate(PROMPT, **CLIP), ANSWER_TIMEOUT_S)
    except asyncio.TimeoutError:
        return NOTHING
    except ReelserveError as error:
        return error_outcome(error)
    return CLIP_OUTCOME if video.mp4 == reference else OTHER_CLIP
