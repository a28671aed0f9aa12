"""Sends a running server thousands of malformed calls."""

from __future__ import annotations

import time
from pathlib import Path

from reelserve.client import Client
from reelserve.pipeline.checkpoint import CheckpointSpec
from reelserve.server.launch.running_server import Server
from reelserve.server.launch.stage_processes import stage_processes
from reelserve.server.launch.tritons import ServeOptions
from reelserve.tools.bench.process_memory import tree_bytes
from reelserve.tools.faults.fault import Fault, Trial, counted
from reelserve.tools.faults.fuzzing import Fuzzer, Tally
from reelserve.tools.faults.load import draw, recovery
from reelserve.tools.faults.memory import MAX_GROWTH, growth

SAMPLES = 50
"""Samples of memory over all calls."""


def fuzz(calls: int, seed: int = 0) -> Trial:
    """This many malformed calls, some at a time, beside clips that are drawn."""
    return Trial("fuzz", lambda repository: _fuzz(repository, calls, seed))


def _fuzz(repository: Path, calls: int, seed: int) -> Fault:
    spec = CheckpointSpec.load(repository / "prompt_processor" / "1")
    with Server(ServeOptions(repository)) as server, Client(server.grpc_url) as client:
        reference = draw(client)
        stages = stage_processes(server.triton_pid)
        fuzzer = Fuzzer(server.grpc_url, spec, seed)
        memory = []
        for first in range(0, calls, calls // SAMPLES):
            last = min(calls, first + calls // SAMPLES)
            fuzzer.send(first, last)
            memory.append((float(last), tree_bytes(server.pid)))
        fuzzer.close()
        recovered_s = recovery(client, time.monotonic(), reference)
        died = sorted(stages.items() - stage_processes(server.triton_pid).items())
    tally, grown = fuzzer.tally, growth(memory)
    return Fault(
        f"{calls} malformed calls",
        "each gets an error of its own fault that shows no path, no source and no address, or its "
        "answer where nothing was wrong with it after all; nothing dies; memory grows by less than "
        f"{MAX_GROWTH:.0%} after warm-up",
        f"{counted(tally.statuses)}; {_blemishes(tally)}; "
        f"{len(died)} processes died; memory {grown:+.1%}",
        recovered_s,
        len(tally.silent),
        tally.clean and not died and grown < MAX_GROWTH and recovered_s is not None,
    )


def _blemishes(tally: Tally) -> str:
    return (
        f"{len(tally.revealing)} messages revealed too much, {len(tally.wordless)} were empty, "
        f"{len(tally.unexpected)} had another status"
    )
