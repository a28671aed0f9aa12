"""Keeps a server busy with calls of every kind, kills its stages, and watches its memory."""

from __future__ import annotations

import os
import random
import signal
import threading
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from reelserve.client import Client
from reelserve.pipeline.checkpoint import CheckpointSpec
from reelserve.server.launch.running_server import Server
from reelserve.server.launch.stage_processes import stage_processes
from reelserve.server.launch.tritons import ServeOptions
from reelserve.tools.bench.process_memory import MemoryTrace
from reelserve.tools.faults.fault import Fault, Trial, all_among, counted, recovers
from reelserve.tools.faults.fuzzing import Fuzzer, Tally
from reelserve.tools.faults.load import NOTHING, POLL_S, RECOVERY_TIMEOUT_S
from reelserve.tools.faults.memory import growth
from reelserve.tools.faults.soak_callers import ALLOWED, Caller, send_malformed

CLIENTS = 6
"""More than are denoised together: some always wait."""
SAMPLES = 900
"""Samples of memory over the whole time."""
SECONDS_PER_MINUTE = 60.0
MAX_GROWTH = 0.03
KILLS_SHARE = 0.4
"""Part of the time in which stages are killed. Memory is compared within the rest, since a process
that was just started has yet to fill its caches; the front end, which is never started again, is
watched from the beginning, so that what leaks with each restart shows there."""
MINUTES_PER_KILL = 4.0
"""Well within what a server restarts before it gives a Triton up."""


def soak(minutes: float) -> Trial:
    """Saturation for some minutes."""
    return Trial("soak", lambda repository: _soak(repository, minutes))


def _soak(repository: Path, minutes: float) -> Fault:
    spec = CheckpointSpec.load(repository / "prompt_processor" / "1")
    with Server(ServeOptions(repository)) as server:
        seconds = minutes * SECONDS_PER_MINUTE
        callers = [Caller(server.grpc_url, spec, seed) for seed in range(CLIENTS)]
        fuzzer, kills = Fuzzer(server.grpc_url, spec, seed=0), Kills(server)
        calm_s, every_s = (1 - KILLS_SHARE) * seconds, seconds / SAMPLES

        def going() -> bool:
            return kills.ended is None or time.monotonic() < kills.ended + calm_s

        with (
            MemoryTrace(server.pid, every_s) as all_memory,
            MemoryTrace(server.pid, every_s, with_descendants=False) as own_memory,
        ):
            threads = [threading.Thread(target=caller.work, args=(going,)) for caller in callers]
            threads.append(threading.Thread(target=send_malformed, args=(fuzzer, going)))
            threads.append(threading.Thread(target=kills.work, args=(minutes,)))
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
        fuzzer.close()
        died = kills.died_by_itself()
    outcomes = sum((caller.outcomes for caller in callers), Counter[str]())
    assert kills.ended is not None
    calm = [sample for sample in all_memory.samples if sample[0] > kills.ended]
    memory = Memory(growth(calm), growth(own_memory.samples), calm[-1][1])
    return _judged(minutes, outcomes, fuzzer.tally, kills, died, memory)


@dataclass(frozen=True)
class Memory:
    """What became of the memory.

    Args:
        grown: Growth of all processes since the last kill, as a part.
        front_end_grown: Growth of the front end alone, since the beginning.
        size: Bytes of all at the end.
    """

    grown: float
    front_end_grown: float
    size: int

    def __str__(self) -> str:
        return (
            f"memory {self.grown:+.1%}, {self.size / 2**30:.2f} GiB at the end, that of the front "
            f"end alone {self.front_end_grown:+.1%}"
        )

    @property
    def steady(self) -> bool:
        """Whether none of it grows."""
        return max(self.grown, self.front_end_grown) < MAX_GROWTH


def _judged(
    minutes: float,
    outcomes: Counter[str],
    tally: Tally,
    kills: Kills,
    died: list[str],
    memory: Memory,
) -> Fault:
    slowest_s = max(kills.seconds, default=float("inf"))
    return Fault(
        f"{minutes:g} minutes at saturation, {CLIENTS} clients, stages killed",
        "every request gets its clip or the error that it asked for; after a kill, others get "
        "UnavailableError with a hint and the server is ready again within 10 s; memory grows by "
        f"less than {MAX_GROWTH:.0%} after warm-up",
        f"{counted(outcomes)}; {tally.calls} malformed calls, {tally.faults} of them answered "
        f"badly; {len(kills.seconds)} stages killed, ready again within {slowest_s:.1f} s; "
        f"{len(died)} processes died of themselves{': ' if died else ''}{', '.join(died)}; "
        f"{memory}",
        round(slowest_s, 2),
        outcomes[NOTHING] + len(tally.silent),
        memory.steady
        and not died
        and tally.clean
        and recovers(slowest_s)
        and all_among(outcomes, ALLOWED),
    )


class Kills:
    """Kills a stage now and then, and sees how soon the server is ready again.

    Args:
        server: Its stages are killed.
    """

    def __init__(self, server: Server) -> None:
        self._server, self._rng = server, random.Random(0)
        self._stages = stage_processes(server.triton_pid)
        self.seconds: list[float] = []
        """From each kill until the server was ready with another Triton; infinite if it was not."""
        self.ended: float | None = None
        """When the last one had been got over, on the monotonic clock."""

    def work(self, minutes: float) -> None:
        """Kills during the first part of so many minutes, at least once."""
        span_s = minutes * KILLS_SHARE * SECONDS_PER_MINUTE
        count = max(1, int(minutes * KILLS_SHARE / MINUTES_PER_KILL))
        try:
            with Client(self._server.grpc_url) as client:
                for _ in range(count):
                    time.sleep(span_s / count)
                    self.seconds.append(self._kill(client))
        finally:
            # The callers wait for it.
            self.ended = time.monotonic()

    def _kill(self, client: Client) -> float:
        before, since = self._server.triton_pid, time.monotonic()
        os.kill(self._stages[self._rng.choice(sorted(self._stages))], signal.SIGKILL)
        while time.monotonic() - since < RECOVERY_TIMEOUT_S:
            if self._server.triton_pid not in (before, 0) and client.is_ready():
                self._stages = stage_processes(self._server.triton_pid)
                return time.monotonic() - since
            time.sleep(POLL_S)
        return float("inf")

    def died_by_itself(self) -> list[str]:
        """Stages whose process is not that of the last restart."""
        # Started again, it has another process id.
        return sorted(dict(self._stages.items() - stage_processes(self._server.triton_pid).items()))
