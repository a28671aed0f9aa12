"""Accepts requests, leads each through the stages, and tells who waits how far it is.

One conductor serves both public models, so what it counts is all there is. A clip has two
threads: one calls the stages, the other watches for clients that left, deadlines and denoising
steps. Only the watching one talks to clients.
"""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from reelserve.pipeline.contract import STAGES
from reelserve.server.answers import Answers, fingerprint
from reelserve.server.board import Board, StepReport
from reelserve.server.clip_job import ClipJob, Listener
from reelserve.server.clip_run import STAGE_ORDER, StageCall, Tensors, call_stage, run_stages
from reelserve.server.errors import CancelledError, UnavailableError
from reelserve.server.events import Event
from reelserve.server.picture import encode_png
from reelserve.server.recorder import Recorder
from reelserve.server.work_estimate import WorkEstimate, clip_units

TICK_S = 0.05
BEFORE_STEPS = STAGE_ORDER[: STAGE_ORDER.index("video_diffusion")]
RETRY_AFTER_S = 5.0
"""Said to a refused client while nothing is known about how long clips take."""


@dataclass(frozen=True)
class ConductorSettings:
    """Bounds of a conductor.

    Args:
        max_requests_in_flight: Clips accepted and not ended; later requests are refused.
        share_answers_s: How long a clip answers equal requests again; 0 does not.
    """

    max_requests_in_flight: int
    share_answers_s: int


class Conductor:
    """Every clip in flight.

    Args:
        call_for: Gives, for a clip's key, how to call a stage; called from many threads.
        board: Shared with `video_diffusion`.
        settings: Bounds.
        recorder: Told what happens, for the metrics.
    """

    def __init__(
        self,
        call_for: Callable[[str], StageCall],
        board: Board,
        settings: ConductorSettings,
        recorder: Recorder,
    ) -> None:
        self._call_for, self._board, self._settings = call_for, board, settings
        self._recorder, self._work = recorder, WorkEstimate()
        self._answers = Answers(settings.share_answers_s)
        self._jobs: dict[str, ClipJob] = {}
        self._lock = threading.Lock()
        # A cancelled clip leaves its thread in the stage that it was in, so there are more.
        self._pool = ThreadPoolExecutor(4 * settings.max_requests_in_flight)

    def accept(self, request: Mapping[str, NDArray[Any]], listener: Listener) -> None:
        """Starts a clip, or joins one that is the same.

        Args:
            request: Inputs of `text_to_video` by name.
            listener: Hears of it until it is told the clip or an error.

        Raises:
            UnavailableError: If there is no place; the message says when to try again.
        """
        own = fingerprint(request) if self._settings.share_answers_s else None
        with self._lock:
            known = self._answers.find(own)
            twin = next((j for j in self._jobs.values() if own and j.fingerprint == own), None)
            if known is None and twin is not None:
                twin.listeners.append(listener)
                self._recorder.shared("joined")
                return
            if known is None:
                self._check_place(listener)
                job = ClipJob(dict(request), own, [listener])
                self._jobs[job.key] = job
                self._count()
        if known is not None:
            self._recorder.shared("cached")
            self._answer(listener, known, 0.0)
            return
        self._pool.submit(self._run, job)
        self._pool.submit(self._watch, job)

    def close(self) -> None:
        """Cancels what is in flight and waits for its watchers."""
        with self._lock:
            jobs = list(self._jobs.values())
        for job in jobs:
            job.fail(UnavailableError("the server is shutting down"))
        self._pool.shutdown(wait=True, cancel_futures=True)

    def _check_place(self, listener: Listener) -> None:
        if len(self._jobs) < self._settings.max_requests_in_flight:
            return
        self._recorder.refused(listener.model, "capacity")
        self._recorder.ended(listener.model, "refused", 0.0, None)
        raise UnavailableError(self._refusal())

    def _refusal(self) -> str:
        """The words for a request over the limit; empty while there are places."""
        limit = self._settings.max_requests_in_flight
        if len(self._jobs) < limit:
            return ""
        wait = math.ceil(self._work.next_end_s() or RETRY_AFTER_S)
        return (
            f"{len(self._jobs)} requests are in flight; the limit is {limit}; retry after {wait} s"
        )

    def _count(self) -> None:
        """Says how many clips are in flight; under the lock."""
        self._recorder.in_flight(len(self._jobs))
        self._board.set_full(self._refusal())

    def _run(self, job: ClipJob) -> None:
        """Calls the stages; in a thread of its own."""

        def before(stage: str, tensors: Mapping[str, NDArray[Any]]) -> None:
            if job.ended.is_set() or job.cancelled.is_set():
                raise CancelledError("the request was cancelled")
            job.stage = stage
            if stage == "text_encoder":
                self._measure(job, tensors)

        def after(stage: str, seconds: float) -> None:
            job.stage_seconds[stage] = seconds
            self._recorder.stage(stage, seconds)

        try:
            job.finish(run_stages(job.request, self._call_for(job.key), before, after))
        except Exception as error:
            job.fail(error)
        finally:
            # Not before: until here `video_diffusion` may look for the cancellation.
            self._board.forget(job.key)

    def _measure(self, job: ClipJob, tensors: Mapping[str, NDArray[Any]]) -> None:
        """Counts a checked request as work, or refuses it if its deadline cannot be met."""
        names = ("NUM_FRAMES", "HEIGHT", "WIDTH", "NUM_INFERENCE_STEPS")
        units = clip_units(*(int(tensors[name].item()) for name in names))
        expected, deadline = self._work.expected_s(units, job.key), job.deadline()
        if expected is not None and deadline is not None:
            left = deadline - time.monotonic()
            if expected > left:
                for listener in job.listeners:
                    self._recorder.refused(listener.model, "deadline")
                raise UnavailableError(
                    f"the deadline leaves {left:.1f} s; the clip is expected to take {expected:.1f}"
                )
        self._work.begin(job.key, units)

    def _watch(self, job: ClipJob) -> None:
        """Tells who waits what happens, until it has ended; in a thread of its own."""
        watch = _Watch(job)
        while not job.ended.wait(TICK_S) and self._somebody_waits(job):
            self._forward(job, watch)
        with self._lock:
            self._jobs.pop(job.key, None)
            if job.outputs is not None:
                self._answers.keep(job.fingerprint, job.outputs)
            self._count()
            waiting = list(job.listeners)
        self._work.end(job.key, finished=job.outputs is not None)
        for listener in waiting:
            if job.outputs is not None:
                self._answer(listener, job.outputs, job.seconds)
            elif job.error is not None:
                self._end(listener, job, job.error)

    def _somebody_waits(self, job: ClipJob) -> bool:
        """Lets go who has left; with the last one the clip is cancelled."""
        with self._lock:
            leaving = _leaving(job)
            for listener, _ in leaving:
                job.listeners.remove(listener)
            if not job.listeners:
                # Nobody can join any more, and the place is free at once.
                self._jobs.pop(job.key, None)
                self._count()
                job.cancelled.set()
        if job.cancelled.is_set():
            self._board.cancel(job.key)
        for listener, error in leaving:
            self._recorder.cancelled(listener.model, job.stage)
            self._end(listener, job, error)
        return not job.cancelled.is_set()

    def _forward(self, job: ClipJob, watch: _Watch) -> None:
        """Passes on what is new, or that nothing is."""
        latents = self._board.take_preview(job.key)
        if latents is not None and any(listener.wants_preview for listener in job.listeners):
            self._pool.submit(self._draw_preview, job, latents)
        remaining = self._work.remaining_s(job.key)
        news = watch.news(self._board.read(job.key), remaining)
        for listener in list(job.listeners):
            messages = list(news)
            if not messages and watch.silent_s(listener) >= listener.quiet_s:
                messages = [Event("waiting", job.stage, job.seconds, remaining).outputs()]
            for message in messages:
                if "PREVIEW" not in message or listener.wants_preview:
                    listener.send(message, last=False)
                    watch.heard(listener)

    def _draw_preview(self, job: ClipJob, latents: NDArray[np.float32]) -> None:
        stage = STAGES["vae_decoder"]
        frames = call_stage(stage, {"LATENTS": latents}, self._call_for(job.key))["FRAMES"]
        job.previews.append(encode_png(frames[len(frames) // 2]))

    def _answer(self, listener: Listener, outputs: Tensors, seconds: float) -> None:
        event = Event("clip", "video_encoder", seconds, 0.0)
        listener.send(event.outputs(**outputs), last=True)
        self._recorder.ended(listener.model, "ok", seconds, outputs)

    def _end(self, listener: Listener, job: ClipJob, error: Exception) -> None:
        listener.fail(error)
        self._recorder.ended(listener.model, _outcome(error), job.seconds, None)


class _Watch:
    """What of a job has been told already, and when."""

    def __init__(self, job: ClipJob) -> None:
        self._job = job
        self._step, self._stages, self._previews = 0, 0, 0
        self._heard: dict[int, float] = {}

    def news(self, report: StepReport | None, remaining_s: float | None) -> list[Tensors]:
        """Messages about what happened since the last call."""
        job = self._job
        messages = []
        stages = list(job.stage_seconds)[self._stages :]
        self._stages += len(stages)
        ended = [Event("stage", stage, job.seconds, remaining_s).outputs() for stage in stages]
        before_steps = sum(stage in BEFORE_STEPS for stage in stages)
        messages += ended[:before_steps]
        if report is not None and report.step > self._step:
            self._step = report.step
            event = Event(
                "step", "video_diffusion", job.seconds, remaining_s, report.step, report.steps
            )
            messages.append(event.outputs())
        messages += ended[before_steps:]
        for png in job.previews[self._previews :]:
            self._previews += 1
            event = Event("preview", job.stage, job.seconds, remaining_s)
            messages.append(event.outputs(PREVIEW=np.array([png], np.object_)))
        return messages

    def heard(self, listener: Listener) -> None:
        """The listener was told something."""
        self._heard[id(listener)] = time.monotonic()

    def silent_s(self, listener: Listener) -> float:
        """Since it was told something."""
        return time.monotonic() - self._heard.get(id(listener), self._job.accepted)


def _leaving(job: ClipJob) -> list[tuple[Listener, Exception]]:
    """Listeners that wait no more, and why."""
    now = time.monotonic()
    leaving: list[tuple[Listener, Exception]] = []
    for listener in job.listeners:
        if listener.gone():
            leaving.append((listener, CancelledError("the request was cancelled")))
        elif listener.deadline is not None and now > listener.deadline:
            leaving.append((listener, CancelledError("the deadline of the request has passed")))
    return leaving


def _outcome(error: Exception) -> str:
    for kind, name in (
        (ValueError, "invalid"),
        (UnavailableError, "refused"),
        (CancelledError, "cancelled"),
    ):
        if isinstance(error, kind):
            return name
    return "failed"
