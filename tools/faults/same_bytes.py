"""Draws many clips at once and the same ones again one at a time, and compares their bytes."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from reelserve.client import Client, GenerateOptions
from reelserve.runtimes.export_lock import ExportLock
from reelserve.server.launch.running_server import Server
from reelserve.server.launch.tritons import ServeOptions
from reelserve.tools.faults.fault import Fault, Trial
from reelserve.tools.faults.load import PROMPT

CALLERS = 8
TRIED = "clips at once and one at a time"


def same_bytes(clips: int, options: GenerateOptions | None = None) -> Trial:
    """So many clips, drawn by 8 callers and again by one.

    Frames that two stages hand on wrongly under load show here and nowhere else: nothing fails.

    Args:
        clips: Different ones.
        options: Fields of each request, without a seed.
    """
    return Trial("same-bytes", lambda repository: _compare(repository, clips, options or {}))


def _compare(repository: Path, clips: int, options: GenerateOptions) -> Fault:
    lock = ExportLock.load(repository)
    engine = lock.engine if lock is not None else "unknown"
    with Server(ServeOptions(repository)) as server, Client(server.grpc_url) as client:
        together = drawn(client, clips, CALLERS, options)
        alone = drawn(client, clips, 1, options)
    differ = sum(one != other for one, other in zip(together, alone, strict=True))
    different = len(set(alone))
    return Fault(
        f"{clips} {TRIED}",
        f"the bytes of every clip are the same with {CALLERS} callers as with one",
        f"{differ} of {clips} differ; {different} different clips; engine {engine}",
        None,
        0,
        differ == 0 and different == clips,
    )


def drawn(client: Client, clips: int, callers: int, options: GenerateOptions) -> Sequence[str]:
    """Hash of each clip's MP4, in order.

    Args:
        client: Client of the server.
        clips: Seeds 0 to this.
        callers: Requests at once.
        options: Fields of each request.
    """

    def draw(seed: int) -> str:
        request: GenerateOptions = {**options, "seed": seed}
        video = client.generate(PROMPT, **request)
        return hashlib.sha256(video.mp4).hexdigest()

    with ThreadPoolExecutor(callers) as pool:
        return list(pool.map(draw, range(clips)))
