"""Accepts requests, leads each through the stages, and tells who waits how far it is.

Each process of the two public models has a conductor; what they must agree on, the places and
the answers, lies on the board. A clip has two threads: one calls the stages, the other watches
for a client that left, its deadline and denoising steps. Only the watching one talks to it.
"""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from reelserve.pipeline.contract import STAGES
from reelserve.server.answers import Answers
from reelserve.server.board import Board, StepReport
from reelserve.server.clip_job import ClipJob, Listener
from reelserve.server.clip_run import STAGE_ORDER, StageCall, Tensors, call_stage, run_stages
from reelserve.server.errors import CancelledError, UnavailableError
from reelserve.server.events import Event
from reelserve.server.picture import encode_png
from reelserve.server.places import LEAST_SHARE_LEFT, Places, clip_units
from reelserve.server.recorder import Recorder

TICK_S = 0.05
RETRY_AFTER_S = 5.0
"""Said to a refused client while nothing is known about how long clips take."""
BEFORE_STEPS = STAGE_ORDER[: STAGE_ORDER.index("video_diffusion")]


class CallFor(Protocol):
    """Gives, for a clip's key, how to call a stage."""

    def __call__(self, key: str, *, in_place: bool = True) -> StageCall:
        """`in_place` leaves on a GPU what a stage leaves there."""


@dataclass(frozen=True)
class ConductorSettings:
    """Bounds of the service; the same for every conductor of a server.

    Args:
        max_requests_in_flight: Clips accepted and not ended; later requests are refused.
        share_answers_s: How long a clip answers equal requests again; 0 does not.
    """

    max_requests_in_flight: int
    share_answers_s: int


class Conductor:
    """The clips in flight of one process.

    Args:
        call_for: How to call a stage for a clip; called from many threads.
        board: Shared with `video_diffusion` and the other conductors.
        settings: Bounds.
        recorder: Told what happens, for the metrics.
        max_threads: Of clips that this process leads, and of cancelled ones in their stage.
    """

    def __init__(
        self,
        call_for: CallFor,
        board: Board,
        settings: ConductorSettings,
        recorder: Recorder,
        max_threads: int,
    ) -> None:
        self._call_for, self._board, self._recorder = call_for, board, recorder
        self._places = Places(board.folder, settings.max_requests_in_flight)
        self._answers = Answers(board.folder, settings.share_answers_s)
        self._jobs: dict[str, ClipJob] = {}
        self._pool = ThreadPoolExecutor(max_threads)
        self._count()

    def accept(self, request: Mapping[str, NDArray[Any]], listener: Listener) -> None:
        """Starts a clip; its listener will be told the clip or an error.

        Args:
            request: Inputs of `text_to_video` by name.
            listener: Who waits.

        Raises:
            UnavailableError: If there is no place; the message says when to try again.
        """
        job = self._place(request, listener)
        if job is not None:
            self._pool.submit(self._lead, job)

    def close(self) -> None:
        """Ends what is in flight."""
        for job in list(self._jobs.values()):
            job.fail(UnavailableError("the server is shutting down"))
        self._pool.shutdown(wait=True, cancel_futures=True)

    def _place(self, request: Mapping[str, NDArray[Any]], listener: Listener) -> ClipJob | None:
        """A clip that has a place, or waits for an equal one; None if the answer is known."""
        key = self._answers.key(request)
        known = self._answers.find(key)
        if known is not None:
            self._recorder.shared("cached")
            self._answer(listener, known, 0.0)
            return None
        place = None
        if self._answers.claim(key):
            place = self._places.take()
            if place is None:
                self._answers.drawn(key)
                self._refuse(listener)
            self._count()
        else:
            self._recorder.shared("joined")
        job = ClipJob(dict(request), listener, place, key)
        self._jobs[job.key] = job
        return job

    def _refuse(self, listener: Listener) -> None:
        self._recorder.refused(listener.model, "capacity")
        self._recorder.ended(listener.model, "refused", 0.0, None)
        wait = math.ceil(self._places.next_end_s() or RETRY_AFTER_S)
        raise UnavailableError(
            f"{self._places.limit} requests are in flight, as many as the limit; "
            f"retry after {wait} s"
        )

    def _count(self) -> None:
        with self._places.counting() as count:
            self._recorder.in_flight(count)

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
        """Writes down how large a checked request is; refuses it if its deadline is too near."""
        assert job.place is not None, "only who has a place calls stages"
        names = ("NUM_FRAMES", "HEIGHT", "WIDTH", "NUM_INFERENCE_STEPS")
        job.place.measure(clip_units(*(int(tensors[name].item()) for name in names)))
        expected, deadline = self._places.expected_s(job.place), job.listener.deadline
        left = math.inf if deadline is None else deadline - time.monotonic()
        if expected is not None and expected > left:
            self._recorder.refused(job.listener.model, "deadline")
            raise UnavailableError(
                f"the deadline leaves {left:.1f} s; the clip is expected to take {expected:.1f} s"
            )

    def _lead(self, job: ClipJob) -> None:
        """Watches a clip; a mistake in here must not leave its client waiting for ever."""
        try:
            self._watch(job)
        except Exception as error:
            job.fail(error)
            job.cancelled.set()
            self._board.cancel(job.key)
            if job.key in self._jobs:
                self._close_job(job)
            job.listener.fail(error)
            self._recorder.ended(job.listener.model, "failed", job.seconds, None)

    def _watch(self, job: ClipJob) -> None:
        """Tells who waits what happens, until it has ended."""
        watch = _Watch(job)
        if job.place is not None:
            self._pool.submit(self._run, job)
        looked = time.monotonic()
        while not job.ended.wait(TICK_S) and not self._left(job):
            now = time.monotonic()
            job.share_s += (now - looked) / max(1, self._places.count())
            looked = now
            if job.place is None:
                self._look_for_twin(job)
            self._forward(job, watch)
        self._close_job(job)
        if job.outputs is not None:
            self._answer(job.listener, job.outputs, job.seconds)
        else:
            error = job.error or CancelledError("the request was cancelled")
            job.listener.fail(error)
            self._recorder.ended(job.listener.model, _outcome(error), job.seconds, None)

    def _close_job(self, job: ClipJob) -> None:
        """Frees the place, and lets others have the answer."""
        del self._jobs[job.key]
        if job.place is None:
            return
        if job.outputs is not None:
            self._answers.keep(job.answer_key, job.outputs)
            self._places.learn(job.share_s / job.place.units)
        self._answers.drawn(job.answer_key)
        job.place.free()
        self._count()

    def _left(self, job: ClipJob) -> bool:
        """Whether nobody waits any more; the clip is cancelled then."""
        deadline = job.listener.deadline
        if deadline is not None and time.monotonic() > deadline:
            job.fail(CancelledError("the deadline of the request has passed"))
        elif not job.listener.gone():
            return False
        job.cancelled.set()
        self._board.cancel(job.key)
        self._recorder.cancelled(job.listener.model, job.stage)
        return True

    def _look_for_twin(self, job: ClipJob) -> None:
        """Takes the answer that an equal request has got, or draws the clip after all."""
        known = self._answers.find(job.answer_key)
        if known is not None:
            job.outputs = known
            job.ended.set()
        elif self._answers.claim(job.answer_key):
            job.place = self._places.take()
            if job.place is None:
                self._answers.drawn(job.answer_key)
                return
            self._pool.submit(self._run, job)

    def _forward(self, job: ClipJob, watch: _Watch) -> None:
        """Passes on what is new, or that nothing is."""
        latents = self._board.take_preview(job.key)
        if latents is not None and job.listener.wants_preview:
            self._pool.submit(self._draw_preview, job, latents)
        remaining = self._remaining_s(job)
        messages = watch.news(self._board.read(job.key), remaining)
        if not messages and watch.silent_s() >= job.listener.quiet_s:
            messages = [Event("waiting", job.stage, job.seconds, remaining).outputs()]
        for message in messages:
            job.listener.send(message, last=False)
            watch.heard()

    def _remaining_s(self, job: ClipJob) -> float | None:
        cost = self._places.seconds_per_unit()
        if cost is None or job.place is None or not job.place.units:
            return None
        whole = cost * job.place.units
        return max(LEAST_SHARE_LEFT * whole, whole - job.share_s) * max(1, self._places.count())

    def _draw_preview(self, job: ClipJob, latents: NDArray[np.float32]) -> None:
        stage = STAGES["vae_decoder"]
        call = self._call_for(job.key, in_place=False)
        frames = np.asarray(call_stage(stage, {"LATENTS": latents}, call)["FRAMES"])
        job.previews.append(encode_png(frames[len(frames) // 2]))

    def _answer(self, listener: Listener, outputs: Tensors, seconds: float) -> None:
        event = Event("clip", STAGE_ORDER[-1], seconds, 0.0)
        listener.send(event.outputs(**outputs), last=True)
        self._recorder.ended(listener.model, "ok", seconds, outputs)


class _Watch:
    """What of a job has been told already, and when."""

    def __init__(self, job: ClipJob) -> None:
        self._job = job
        self._step, self._stages, self._previews = 0, 0, 0
        self._heard = job.accepted

    def news(self, report: StepReport | None, remaining_s: float | None) -> list[Tensors]:
        """Messages about what happened since the last call."""
        job, seconds = self._job, self._job.seconds
        messages = []
        stages = list(job.stage_seconds)[self._stages :]
        self._stages += len(stages)
        ended = [Event("stage", stage, seconds, remaining_s).outputs() for stage in stages]
        before_steps = sum(stage in BEFORE_STEPS for stage in stages)
        messages += ended[:before_steps]
        if report is not None and report.step > self._step:
            self._step = report.step
            event = Event(
                "step", "video_diffusion", seconds, remaining_s, report.step, report.steps
            )
            messages.append(event.outputs())
        messages += ended[before_steps:]
        for png in job.previews[self._previews :]:
            self._previews += 1
            event = Event("preview", job.stage, seconds, remaining_s)
            messages.append(event.outputs(PREVIEW=np.array([png], np.object_)))
        return messages

    def heard(self) -> None:
        """The listener was told something."""
        self._heard = time.monotonic()

    def silent_s(self) -> float:
        """Since it was told something."""
        return time.monotonic() - self._heard


def _outcome(error: Exception) -> str:
    for kind, name in (
        (ValueError, "invalid"),
        (UnavailableError, "refused"),
        (CancelledError, "cancelled"),
    ):
        if isinstance(error, kind):
            return name
    return "failed"
