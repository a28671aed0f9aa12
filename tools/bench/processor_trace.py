"""How many cores each part of a server and its load takes, sampled while something runs."""

from __future__ import annotations

import contextlib
import threading
import time
from collections import Counter
from dataclasses import dataclass, field

import psutil

from reelserve.server.launch.stage_processes import INSTANCE, STUB
from reelserve.tools.bench.process_memory import descendants

SAMPLE_S = 0.5
FRONT_END, TRITON, LOAD = "front end", "tritonserver", "load generator"
MODULES = {"reelserve.server": FRONT_END, "reelserve.loadtest": LOAD}
"""What `python -m` runs."""


def part_of(arguments: list[str]) -> str | None:
    """What a process is, by its arguments: a stage by its name, or one of the parts above.

    None of another process.
    """
    if not arguments:
        return None
    if STUB in arguments[0]:
        instance = next((text for text in arguments if INSTANCE.fullmatch(text)), None)
        return instance.rsplit("_", 2)[0] if instance else None
    if arguments[0].endswith(TRITON):
        return TRITON
    return next((MODULES[text] for text in arguments if text in MODULES), None)


@dataclass
class ProcessorTrace:
    """Samples processor time of the descendants of a process while the block runs.

    Args:
        root: Process id.
    """

    root: int
    samples: list[tuple[float, Counter[str]]] = field(default_factory=list)
    """Moment on the monotonic clock, and seconds by part."""

    def __post_init__(self) -> None:
        self._parts: dict[int, str | None] = {}
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._sample, daemon=True)

    def __enter__(self) -> ProcessorTrace:
        self._thread.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._done.set()
        self._thread.join()

    def cores(self, opened_s: float, closed_s: float) -> dict[str, float]:
        """Cores that each part kept busy in a window, the busiest first; empty without samples.

        Between the samples around the window, so that a short one has some. Processes of several
        Tritons that do the same count together.
        """
        samples = list(self.samples)
        before = [sample for sample in samples if sample[0] <= opened_s][-1:] or samples[:1]
        after = [sample for sample in samples if sample[0] >= closed_s][:1] or samples[-1:]
        if not samples or before == after:
            return {}
        ((first_s, first),), ((last_s, last),) = before, after
        busy = {part: (last[part] - first[part]) / (last_s - first_s) for part in last}
        ordered = sorted(busy.items(), key=lambda item: -item[1])
        return {part: round(value, 2) for part, value in ordered}

    def _sample(self) -> None:
        while not self._done.wait(SAMPLE_S):
            seconds: Counter[str] = Counter()
            for pid in descendants(self.root):
                with contextlib.suppress(psutil.Error):
                    process = psutil.Process(pid)
                    if pid not in self._parts:
                        self._parts[pid] = part_of(process.cmdline())
                    part = self._parts[pid]
                    if part is not None:
                        times = process.cpu_times()
                        seconds[part] += times.user + times.system
            self.samples.append((time.monotonic(), seconds))
