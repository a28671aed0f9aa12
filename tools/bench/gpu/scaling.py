"""Measures one service over more and more GPUs, and what the death of one of its Tritons costs."""

from __future__ import annotations

import math
import threading
import time
import urllib.request
from collections import Counter
from collections.abc import Callable, Iterable, Sequence, Set
from concurrent.futures import ThreadPoolExecutor

import psutil
from prometheus_client.parser import text_string_to_metric_families

from reelserve.client import Client, GenerateOptions, ReelserveError
from reelserve.loadtest.results import number
from reelserve.server.launch.running_server import Server
from reelserve.server.launch.stage_processes import child_processes
from reelserve.tools.bench.gpu.bench_results import newest_origin
from reelserve.tools.bench.gpu.cases import Case
from reelserve.tools.bench.gpu.exporting import repository_of
from reelserve.tools.bench.gpu.phases import Options, Runner, run_cases
from reelserve.tools.bench.gpu.served_clips import PROMPT, Served, request_of, served_case
from reelserve.tools.bench.gpu.state import Budget, Result, State

SCALE, KILL = "scale", "kill"
PHASES = (SCALE, KILL)
CALLERS = 4
"""For each GPU, in a closed loop: the level at which one GPU draws most clips."""
LEVEL_S = 25.0
"""Length that a level should have."""
LEAST_CLIPS = 3
"""For each caller; of a dry run one."""
START_S = 60.0
"""For the estimate: starts, first clips, and the load generator."""
BACK_TIMEOUT_S = 120.0
POLL_S = 0.05
COUNTER = "nv_inference_request_success"
COUNTED_STAGE = "video_diffusion"
"""Every clip passes it once."""


def counts(gpus: int) -> tuple[int, ...]:
    """How many GPUs are tried: 1, 2, 4 and so on, and all of them."""
    powers = (2**power for power in range(gpus.bit_length()))
    return tuple(sorted({*(count for count in powers if count <= gpus), gpus}))


class Scaling:
    """Runs what is missing.

    Args:
        runner: Makes the model repositories.
        options: How.
        gpus: Numbers of all that may be used.
        state: What has been measured.
        budget: How long this may take.
        tell: Takes lines about how far it is.
        changed: Called after every phase.
    """

    def __init__(
        self,
        runner: Runner,
        options: Options,
        gpus: Sequence[str],
        state: State,
        budget: Budget,
        tell: Callable[[str], object],
        changed: Callable[[], object],
    ) -> None:
        self._runner, self._options, self._state = runner, options, state
        self._gpus = tuple(gpus)
        self._budget, self._tell, self._changed = budget, tell, changed

    def run(self, chosen: Iterable[Case], *, export_only: bool = False) -> list[str]:
        """Measures some cases.

        Args:
            chosen: Which.
            export_only: Whether to make their model repositories, and no more.

        Returns:
            What failed: a case whose phase fails is left, and the next one is begun.

        Raises:
            OutOfBudgetError: If a phase does not fit into the time that is left.
        """
        run = self._runner.export if export_only else self._case
        return run_cases(chosen, run, self._tell)

    def _case(self, case: Case) -> None:
        phases = missing_phases(case, self._state, len(self._gpus))
        if not phases:
            return
        self._runner.export(case)
        for count in counts(len(self._gpus)):
            wanted = {phase(SCALE, count), phase(KILL, count)}.intersection(phases)
            if wanted:
                self._serve(case, count, wanted)
        if not self._options.keep:
            self._runner.release(case)

    def _serve(self, case: Case, count: int, wanted: Set[str]) -> None:
        self._budget.require(f"{case.name} on {count}", START_S)
        self._tell(f"{case.name}: {count} at once ({time.strftime('%H:%M:%S')})")
        options, gpus = self._options, self._gpus[:count]
        log = options.work / case.name / f"triton_{count}.log"
        timeout_s = min(options.ready_timeout_s, self._budget.left_s or options.ready_timeout_s)
        with served_case(case, repository_of(case, options.work), log, timeout_s, gpus) as served:
            if phase(SCALE, count) in wanted:
                self._save(case, phase(SCALE, count), self._level(served, count))
            if phase(KILL, count) in wanted:
                self._save(case, phase(KILL, count), killed(served.server, case, count))

    def _level(self, served: Served, count: int) -> Result:
        # The first one loads what is loaded late.
        served.first_clip()
        video, clip_s = served.first_clip()
        callers = CALLERS * count
        enough = max(LEAST_CLIPS * callers, math.ceil(callers * LEVEL_S / clip_s))
        clips = callers if self._options.tiny else enough
        before = clips_by_triton(served.server.metrics_url)
        result = served.level(callers, clips, video, self._budget.left_s or 600.0)
        after = clips_by_triton(served.server.metrics_url)
        drawn = {name: after[name] - before.get(name, 0) for name in after}
        ready_s = round(served.server.ready_s, 2)
        return {"gpus": count, **result, "clips_by_triton": drawn, "ready_s": ready_s}

    def _save(self, case: Case, name: str, result: Result) -> None:
        self._state.save(case, name, result)
        self._changed()


def phase(kind: str, count: int) -> str:
    """Name of a phase with so many GPUs."""
    return f"{kind} {count}"


def missing_phases(case: Case, state: State, gpus: int) -> list[str]:
    """Phases of a case that have not been run."""
    wanted = [phase(SCALE, count) for count in counts(gpus)]
    # Tried where all Tritons run.
    wanted += [phase(KILL, gpus)] * (gpus > 1)
    return [name for name in wanted if state.find(case, name) is None]


def clips_by_triton(metrics_url: str) -> dict[str, int]:
    """Clips that each Triton has drawn since its start, by its name; `triton` where it is alone."""
    with urllib.request.urlopen(metrics_url, timeout=30) as reply:
        text = reply.read().decode()
    found: Counter[str] = Counter()
    for family in text_string_to_metric_families(text):
        # The parser adds `_total` to the names of a counter's samples.
        for sample in family.samples if family.name == COUNTER else ():
            if sample.labels["model"] == COUNTED_STAGE:
                found[sample.labels.get("triton", "triton")] += int(sample.value)
    return dict(found)


def killed(server: Server, case: Case, count: int) -> Result:
    """Kills one of the Tritons while each has its callers, and counts what that costs.

    Args:
        server: Running over `count` GPUs.
        case: What it draws.
        count: How many Tritons there are.

    Returns:
        `in_flight` when it was killed, how many of these were `lost`, `later` (outcomes of
        requests sent after it) and `back_s`, seconds until all Tritons were ready again; None if
        they were not within two minutes.
    """
    callers = CALLERS * count
    load = _Callers(server.grpc_url, case)
    with ThreadPoolExecutor(callers) as pool:
        futures = [pool.submit(load.draw_on, caller) for caller in range(callers)]
        # In the second round of clips the callers are out of step, as they are in life.
        while not load.done.is_set() and sum(load.outcomes.values()) < callers:
            time.sleep(POLL_S)
        victim = min(child.pid for child in child_processes(server.pid))
        in_flight = load.in_flight
        killed_s = time.monotonic()
        load.killed_s = killed_s
        psutil.Process(victim).kill()
        back_s = _seconds_until_back(server, victim, count, killed_s)
        load.done.set()
        for future in futures:
            future.result()
    lost = sum(load.lost.values())
    return {
        "gpus": count,
        "callers": callers,
        "in_flight": in_flight,
        "lost": lost,
        "lost_as": dict(load.lost),
        "later": dict(load.later),
        "back_s": None if back_s is None else number(back_s),
    }


class _Callers:
    """Callers of a closed loop, and what became of their requests."""

    def __init__(self, url: str, case: Case) -> None:
        self._url, self._case, self._lock = url, case, threading.Lock()
        self.done = threading.Event()
        self.killed_s = math.inf
        self.in_flight = 0
        self.outcomes: Counter[str] = Counter()
        self.lost: Counter[str] = Counter()
        self.later: Counter[str] = Counter()

    def draw_on(self, caller: int) -> None:
        """Draws clips, one after the other, until it is done."""
        with Client(self._url) as client:
            for turn in range(10**6):
                if self.done.is_set():
                    return
                # A request of its own: the same one would be answered from the cache.
                self._draw(client, seed=10**6 * caller + turn)

    def _draw(self, client: Client, seed: int) -> None:
        with self._lock:
            self.in_flight += 1
            sent_s = time.monotonic()
        outcome, hint_s = "clip", 0.0
        request: GenerateOptions = {**request_of(self._case), "seed": seed}
        try:
            client.generate(PROMPT, **request)
        except ReelserveError as error:
            outcome = type(error).__name__
            hint_s = getattr(error, "retry_after_s", None) or 0.0
        with self._lock:
            self.in_flight -= 1
            self.outcomes[outcome] += 1
            if sent_s > self.killed_s:
                self.later[outcome] += 1
            elif outcome != "clip":
                self.lost[outcome] += 1
        self.done.wait(hint_s)


def _seconds_until_back(server: Server, victim: int, count: int, since_s: float) -> float | None:
    while time.monotonic() - since_s < BACK_TIMEOUT_S:
        gone = victim not in {child.pid for child in child_processes(server.pid)}
        if gone and _tritons_ready(server.metrics_url) == count:
            return time.monotonic() - since_s
        time.sleep(POLL_S)
    return None


def _tritons_ready(metrics_url: str) -> float:
    with urllib.request.urlopen(metrics_url, timeout=30) as reply:
        families = text_string_to_metric_families(reply.read().decode())
        samples = (sample for family in families for sample in family.samples)
        return next((s.value for s in samples if s.name == "reelserve_tritons_ready"), 0.0)


def collect_scaling(cases: Sequence[Case], state: State, gpus: int, how: Result) -> Result:
    """The results file, of all that has been measured so far.

    Args:
        cases: In the order of the file.
        state: Holds what was measured, and on what.
        gpus: The most that were tried.
        how: Engine, precision and command.

    Raises:
        ValueError: If it was measured on more than one kind of GPU.
    """
    rows, deaths = [], []
    for case in cases:
        alone = (state.find(case, phase(SCALE, 1)) or {}).get("videos_per_s")
        for count in counts(gpus):
            if found := state.find(case, phase(SCALE, count)):
                speed = found["videos_per_s"]
                efficiency = number(speed / (count * alone)) if alone and speed else None
                rows.append({"model": case.name, "efficiency": efficiency, **found})
            if found := state.find(case, phase(KILL, count)):
                deaths.append({"model": case.name, **found})
    commits = sorted({origin["commit"] for case in cases for origin in state.origins(case)})
    origin = newest_origin(cases, state)
    return {"rows": rows, "deaths": deaths, "commits": commits, **how, **origin}
