"""Serves a case with the real server and loads it, level by level."""

from __future__ import annotations

import contextlib
import math
import os
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from reelserve.client import Client, GenerateOptions, Video
from reelserve.loadtest.command import MODEL, make_load
from reelserve.loadtest.figures import ServerTime, level_figures
from reelserve.loadtest.plan import CLOSED, PROMPTS_FILE, Plan, read_prompts, request_name
from reelserve.loadtest.results import number
from reelserve.server.launch.running_server import Server
from reelserve.server.launch.tritons import ServeOptions
from reelserve.tools.bench.gpu.cases import Case
from reelserve.tools.bench.gpu.gpu_monitor import GpuMonitor
from reelserve.tools.bench.gpu.state import Result
from reelserve.tools.bench.process_memory import MemoryTrace
from reelserve.tools.bench.processor_trace import ProcessorTrace

LEVEL_CLIPS = {1: 3, 2: 6, 4: 8}
"""Requests at once to clips that are counted at least; few, since a GPU's seconds are dear. The
95th percentile of so few is the slowest one."""
LEVEL_S = 5.0
"""Length that a level should have: where clips take less than that allows, more of them count."""
SETTLE_S = 3.0
"""Between two levels, for clips that the last one has cancelled to leave the server."""
PROMPT = "a large yellow star spins on a starry night"


@dataclass
class Served:
    """A server over a case's repository, measured while it runs.

    Args:
        case: What it draws.
        server: Running.
        gpu: Sampling, all of its GPUs.
        cores: Sampling what its processes take.
        host: Sampling the memory of the server's processes; None where there is a GPU.
    """

    case: Case
    server: Server
    gpu: GpuMonitor
    cores: ProcessorTrace
    host: MemoryTrace | None

    def first_clip(self) -> tuple[Video, float]:
        """Draws a clip to warm up; gives its seconds too."""
        started = time.monotonic()
        with Client(self.server.grpc_url) as client:
            video = client.generate(PROMPT, **request_of(self.case))
        return video, time.monotonic() - started

    def level(self, callers: int, clips: int, video: Video, most_s: float) -> Result:
        """Loads the server with so many callers at once.

        Args:
            callers: Each sends a request when its last one has ended.
            clips: How many are counted.
            video: The first clip, for the name of the requests.
            most_s: The level ends after so long, unfinished.

        Returns:
            An entry of `levels` in the results.
        """
        plan = Plan(
            url=self.server.grpc_url,
            name=request_name(MODEL, video.info),
            loop=CLOSED,
            levels=(float(callers),),
            prompts=read_prompts(PROMPTS_FILE),
            request={name: v for name, v in request_of(self.case).items() if name != "seed"},
            clips=clips,
            rounds=1,
            max_level_s=most_s,
        )
        measured = make_load(plan)
        if not measured.windows:
            raise RuntimeError(f"{callers} at once: {measured.unfinished}")
        window = measured.windows[0]
        figures = level_figures(window, measured.requests, CLOSED)
        span = (measured.started_s + window.opened_s, measured.started_s + window.closed_s)
        busy = self.gpu.utilisation(*span)
        time.sleep(SETTLE_S)
        return {
            "concurrency": callers,
            "videos_per_s": number(figures.clips_per_s),
            **{name: number(getattr(figures, name)) for name in ("mean_s", "p50_s", "p95_s")},
            "clips": figures.clips,
            "errors": figures.errors,
            "refused": figures.refused,
            "littles_law_ratio": number(figures.law_ratio),
            "peak_memory_bytes": self.gpu.peak_memory_bytes() or self._host_bytes(),
            "idle_share": None if busy is None else number(1 - busy),
            **self.gpu.speed(*span),
            "cores": self.cores.cores(*span),
            "stages_s": stage_times(figures.server, callers),
            "queue_s": {name: number(times.queue_s) for name, times in figures.server.items()},
            "error_messages": measured.errors,
        }

    def _host_bytes(self) -> int | None:
        return None if self.host is None else self.host.peak_bytes


@contextlib.contextmanager
def served_case(
    case: Case, repository: Path, log: Path, ready_timeout_s: float, gpus: tuple[str, ...] = ()
) -> Iterator[Served]:
    """Starts a server, and ends it whatever happens.

    Args:
        case: What it draws.
        repository: Exported.
        log: File for the server's log.
        ready_timeout_s: Bound on the start.
        gpus: One Triton on each of these; empty: one Triton.

    Raises:
        ServerError: If it does not start.
    """
    options = ServeOptions(repository, log_file=log, ready_timeout_s=ready_timeout_s, gpus=gpus)
    with contextlib.ExitStack() as stack:
        gpu = stack.enter_context(GpuMonitor(gpus))
        cores = stack.enter_context(ProcessorTrace(os.getpid()))
        host = None if gpu.runs else stack.enter_context(MemoryTrace(os.getpid(), with_root=False))
        yield Served(case, stack.enter_context(Server(options)), gpu, cores, host)


def level_clips(callers: int, clip_s: float) -> int:
    """Clips to count at a level, where one takes so long by itself."""
    return max(LEVEL_CLIPS[callers], math.ceil(callers * LEVEL_S / clip_s))


def request_of(case: Case) -> GenerateOptions:
    """Fields of a case's request."""
    return {
        "seed": 0,
        "num_inference_steps": case.steps,
        "guidance_scale": case.guidance,
        "num_frames": case.num_frames,
        "fps": case.fps,
        "height": case.height,
        "width": case.width,
    }


def stage_times(server: Mapping[str, ServerTime], callers: int) -> dict[str, float | None]:
    """Seconds of computing by stage for each clip, `denoiser` taken out of `video_diffusion`.

    Args:
        server: Times by stage.
        callers: Requests at once. A clip that is alone waits for nobody, so what it is in
            `video_diffusion` beside the denoiser's computing is that stage's own. Above 1 the steps
            of several clips overlap there, and what is its own cannot be told.
    """
    seconds = {name: number(times.compute_s) for name, times in server.items()}
    if "video_diffusion" in server:
        own_s = server["video_diffusion"].queue_s
        seconds["video_diffusion"] = number(own_s) if callers == 1 else None
    return seconds
