"""Keeps a server busy with requests of every kind and watches its memory."""

from __future__ import annotations

import contextlib
import random
import threading
import time
from collections import Counter
from pathlib import Path

from reelserve.client import Client, GenerateOptions, ReelserveError
from reelserve.pipeline.checkpoint import CheckpointSpec
from reelserve.server.launch.running_server import Server
from reelserve.server.launch.stage_processes import stage_processes
from reelserve.server.launch.tritons import ServeOptions
from reelserve.tools.bench.process_memory import MemoryTrace
from reelserve.tools.faults.fault import Fault, Trial, counted
from reelserve.tools.faults.memory import MAX_GROWTH, growth

CLIENTS = 6
"""More than are denoised together: some always wait."""
SAMPLES = 900
"""Samples of memory over the whole time."""
SECONDS_PER_MINUTE = 60.0
PROMPTS = ("a red star", "a blue circle moves", "a small green square spins on the sea", "⭐" * 40)
CLIP_TIMEOUT_S = 300.0
ALLOWED = ("clip", "left", "InvalidArgumentError")


def soak(minutes: float) -> Trial:
    """Saturation for some minutes."""
    return Trial("soak", lambda repository: _soak(repository, minutes))


def _soak(repository: Path, minutes: float) -> Fault:
    spec = CheckpointSpec.load(repository / "prompt_processor" / "1")
    outcomes: Counter[str] = Counter()
    with Server(ServeOptions(repository)) as server:
        stages = stage_processes(server.triton_pid)
        seconds = minutes * SECONDS_PER_MINUTE
        until = time.monotonic() + seconds
        with MemoryTrace(server.pid, seconds / SAMPLES) as memory:
            threads = [
                threading.Thread(target=_work, args=(server.grpc_url, spec, n, until, outcomes))
                for n in range(CLIENTS)
            ]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
        # Started again, it has another process id.
        lost_stages = sorted(dict(stages.items() - stage_processes(server.triton_pid).items()))
    grown = growth(memory.samples)
    died = f"; died: {', '.join(lost_stages)}" if lost_stages else ""
    return Fault(
        f"{minutes:g} minutes at saturation, {CLIENTS} clients",
        "every request gets its clip, or its error where it asked for one; memory grows by less "
        f"than {MAX_GROWTH:.0%} after warm-up",
        f"{counted(outcomes)}; memory {grown:+.1%}, {memory.samples[-1][1] / 2**30:.2f} GiB at "
        f"the end{died}",
        None,
        outcomes["nothing"],
        grown < MAX_GROWTH and not lost_stages and not set(outcomes) - set(ALLOWED),
    )


def _work(
    url: str, spec: CheckpointSpec, number: int, until: float, outcomes: Counter[str]
) -> None:
    """Sends one request after the other; counts are only ever added to."""
    rng = random.Random(number)
    with Client(url, timeout_s=CLIP_TIMEOUT_S, max_retries=10) as client:
        while time.monotonic() < until:
            act = rng.choices((_clip, _stream, _leave, _refused), (6, 4, 2, 1))[0]
            try:
                outcome = act(client, spec, rng)
            except ReelserveError as error:
                outcome = type(error).__name__
            outcomes[outcome] += 1


def _options(spec: CheckpointSpec, rng: random.Random) -> GenerateOptions:
    limits = spec.limits
    frames = limits.num_frames
    step = frames.multiple_of
    return {
        "seed": rng.randrange(2**31),
        "num_inference_steps": rng.randint(1, limits.num_inference_steps.default),
        "guidance_scale": rng.choice((1.0, limits.guidance_scale.default)),
        "num_frames": rng.choice((frames.low, frames.low + step, frames.default)),
        "priority": rng.choice(("interactive", "batch")),
    }


def _clip(client: Client, spec: CheckpointSpec, rng: random.Random) -> str:
    client.generate(rng.choice(PROMPTS), **_options(spec, rng))
    return "clip"


def _stream(client: Client, spec: CheckpointSpec, rng: random.Random) -> str:
    for event in client.stream(rng.choice(PROMPTS), **_options(spec, rng)):
        if event.video is not None:
            return "clip"
    return "nothing"


def _leave(client: Client, spec: CheckpointSpec, rng: random.Random) -> str:
    with contextlib.closing(client.stream(rng.choice(PROMPTS), **_options(spec, rng))) as stream:
        for _ in range(rng.randint(1, 6)):
            if next(stream).video is not None:
                return "clip"
    return "left"


def _refused(client: Client, spec: CheckpointSpec, rng: random.Random) -> str:
    client.generate("a red star", num_frames=spec.limits.num_frames.low + 1)
    return "clip"
