"""Accepts requests, gives each clip a place on a Triton, and lets it go."""

from __future__ import annotations

import asyncio
import json
import math
import time
from collections.abc import Coroutine, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from reelserve.pipeline.checkpoint import CheckpointSpec
from reelserve.pipeline.contract import ENSEMBLE_STAGES, INFO
from reelserve.pipeline.request import VideoRequest
from reelserve.server.frontend.admission import Admission, TritonLoad, clip_units
from reelserve.server.frontend.api_keys import KeyHolder
from reelserve.server.frontend.call_errors import CallError, deadline_passed, invalid, unavailable
from reelserve.server.frontend.clip import Answer, Clip, elapsed_by_stage
from reelserve.server.frontend.messages import InferRequest
from reelserve.server.frontend.metrics import Recorder
from reelserve.server.frontend.request_log import CallRecord, RequestLog
from reelserve.server.frontend.response_cache import ResponseCache
from reelserve.server.frontend.upstream import RESTART_S, Upstream
from reelserve.server.metric_table import (
    CANCELS,
    MAX_REQUESTS_IN_FLIGHT,
    REFUSALS,
    REQUEST_SECONDS,
    REQUESTS,
    REQUESTS_IN_FLIGHT,
    SHARED_ANSWERS,
    STAGE_SECONDS,
    TRITONS_READY,
    VIDEO_SECONDS,
    VIDEOS,
)
from reelserve.server.progress import ProgressFolder
from reelserve.server.prompts import FILE_NAME, PromptTokenizer, check_request

RETRY_AFTER_S = 5.0
"""Retry hint for a refused client while nothing is known about how long clips take."""


@dataclass(frozen=True)
class ServiceSettings:
    """What a repository says of its service.

    Args:
        max_requests_in_flight: Clips accepted and not ended, on each Triton.
        max_active_requests: Clips that take denoising steps together, on each Triton.
        share_answers_s: How long a clip answers equal requests again; 0 does not.
    """

    max_requests_in_flight: int
    max_active_requests: int
    share_answers_s: float


class Service:
    """Keeps the clips in flight; used by one thread alone.

    Args:
        prompt_processor: Version folder of that stage: limits and tokenizer.
        settings: Bounds.
        upstreams: The Tritons.
        progress: Shared with their stages.
        requests: Told how requests end.
    """

    def __init__(
        self,
        prompt_processor: Path,
        settings: ServiceSettings,
        upstreams: Sequence[Upstream],
        progress: ProgressFolder,
        requests: RequestLog | None = None,
    ) -> None:
        self.requests = requests or RequestLog()
        self.checkpoint = CheckpointSpec.load(prompt_processor)
        self.limits = self.checkpoint.limits
        self._tokenizer = PromptTokenizer(
            prompt_processor / FILE_NAME, self.limits.max_prompt_tokens
        )
        self.upstreams, self._progress = upstreams, progress
        self._admission = Admission(
            [upstream.load for upstream in upstreams],
            settings.max_requests_in_flight,
            settings.max_active_requests,
        )
        self._cache = ResponseCache[Clip](settings.share_answers_s)
        self._clips: set[Clip] = set()
        self.draining = False
        self.recorder = Recorder(
            {
                REQUESTS_IN_FLIGHT: lambda: self._admission.in_flight,
                MAX_REQUESTS_IN_FLIGHT: lambda: self._admission.limit,
                TRITONS_READY: lambda: sum(upstream.load.ready for upstream in upstreams),
            }
        )

    @property
    def ready(self) -> bool:
        """Whether requests are accepted."""
        return self._admission.ready and not self.draining

    def begin(
        self,
        request: InferRequest,
        left_s: float,
        caller: KeyHolder | None = None,
        record: CallRecord | None = None,
    ) -> Clip:
        """Accepts a request; `wait` or `leave` must follow.

        Args:
            request: As it was sent.
            left_s: Seconds until its deadline.
            caller: Who sent it; None has no limit of its own.
            record: Told what becomes known of the request.

        Raises:
            CallError: If it is out of range, or refused.
        """
        record = record or CallRecord("", (), time.monotonic())
        if self.draining:
            raise self._refused("draining", unavailable("the server is shutting down", RESTART_S))
        try:
            checked, _, _ = check_request(request.tensors, self.limits, self._tokenizer)
        except ValueError as error:
            self.recorder.count(REQUESTS, outcome="invalid")
            raise invalid(str(error)) from None
        record.checked = checked
        record.seed = checked.seed if "SEED" in request.tensors else None
        clip = self._cache.find(request.tensors)
        if clip is not None:
            how = "joined" if clip.ended_at is None else "cached"
            record.shared = how
            self.recorder.count(SHARED_ANSWERS, how=how)
        else:
            clip = self._accept(request, checked, left_s, caller)
        clip.join()
        record.clip = clip
        return clip

    async def wait(
        self,
        clip: Clip,
        left_s: float,
        began: float,
        telling: Coroutine[Any, Any, None] | None = None,
    ) -> Answer:
        """Waits for a clip; whoever stops waiting, by a cancel or a deadline, leaves it here.

        Args:
            clip: Clip that `begin` gave.
            left_s: Seconds until the deadline.
            began: When the request came; the clip may be older.
            telling: Runs meanwhile, and ends when the clip has.

        Raises:
            CallError: How else it ended.
        """
        waited = clip.result if telling is None else asyncio.ensure_future(telling)
        try:
            timeout_s = None if math.isinf(left_s) else left_s
            done, _ = await asyncio.wait({waited}, timeout=timeout_s)
            if not done:
                raise deadline_passed()
            if telling is not None:
                await waited
        except BaseException:
            self.leave(clip)
            raise
        finally:
            if telling is not None:
                waited.cancel()
        try:
            answer = clip.result.result()
        except CallError as error:
            self.leave(clip, "failed")
            # A copy: others may wait for the same clip.
            raise CallError(error.code, error.message) from None
        self.recorder.count(REQUESTS, outcome="ok")
        self.recorder.observe(REQUEST_SECONDS, time.monotonic() - began)
        return answer

    def leave(self, clip: Clip, outcome: str = "cancelled") -> None:
        """Somebody who waited has gone."""
        self.recorder.count(REQUESTS, outcome=outcome)
        if outcome == "cancelled":
            self.recorder.count(CANCELS, stage=clip.stage())
        if clip.leave():
            self._cache.remove(clip)

    def remaining_s(self, clip: Clip) -> float | None:
        """Estimate of the seconds until a clip is there; None while nothing is known."""
        return None if clip.ended_at is not None else self._admission.remaining_s(clip.place)

    async def drain(self, timeout_s: float) -> bool:
        """Refuses what is new and waits for what is in flight.

        Returns:
            Whether all of it ended in time.
        """
        self.draining = True
        deadline = time.monotonic() + timeout_s
        while self._clips and time.monotonic() < deadline:
            ends = [asyncio.ensure_future(clip.wait_ended()) for clip in self._clips]
            await asyncio.wait(ends, timeout=deadline - time.monotonic())
        return not self._clips

    def fail_all(self) -> None:
        """Ends what is in flight."""
        self.draining = True
        for clip in list(self._clips):
            clip.fail(unavailable("the server is shutting down", RESTART_S))

    def abandoned_s(self, load: TritonLoad) -> float:
        """How long Triton has gone on with a clip for which nobody waits; 0 if there is none."""
        left = [c.left_at for c in self._clips if c.place.load is load and c.left_at is not None]
        return time.monotonic() - min(left) if left else 0.0

    def _accept(
        self, request: InferRequest, checked: VideoRequest, left_s: float, caller: KeyHolder | None
    ) -> Clip:
        if caller is not None:
            self._check_own_limit(caller)
        load = self._admission.choose()
        if load is None:
            raise self._full()
        units = clip_units(
            checked.num_frames, checked.height, checked.width, checked.num_inference_steps
        )
        expected_s = self._admission.expected_s(load, units)
        if left_s <= 0 or (expected_s is not None and expected_s > left_s):
            raise self._too_late(left_s, expected_s)
        upstream = next(one for one in self.upstreams if one.load is load)
        place = self._admission.take(load, units, "" if caller is None else caller.name)
        clip = Clip(request.tensors, upstream, place, self._progress, self._ended)
        self._clips.add(clip)
        self._cache.add(request.tensors, clip)
        return clip

    def _ended(self, clip: Clip) -> None:
        """Frees the place: Triton's work on the clip has ended."""
        self._clips.discard(clip)
        finished = clip.result.done() and clip.result.exception() is None
        self._admission.free(clip.place, finished=finished)
        elapsed = elapsed_by_stage(clip.entries(), clip.accepted, time.monotonic())
        # Stages that told nothing are one block, which is no stage.
        for stage in elapsed.keys() & set(ENSEMBLE_STAGES):
            self.recorder.observe(STAGE_SECONDS, elapsed[stage], stage=stage)
        if finished:
            info = json.loads(clip.result.result()[INFO.name])
            self.recorder.count(VIDEOS)
            self.recorder.count(VIDEO_SECONDS, info["num_frames"] / info["fps"])
        else:
            self._cache.remove(clip)

    def _check_own_limit(self, caller: KeyHolder) -> None:
        held, limit = len(self._admission.held_by(caller.name)), caller.max_in_flight
        if held >= limit:
            wait_s = self._admission.retry_after_s(RETRY_AFTER_S, caller.name)
            words = f"{caller.name} has {held} of at most {limit} clips in flight"
            raise self._refused("quota", unavailable(words, wait_s))

    def _full(self) -> CallError:
        if not self._admission.ready:
            return self._refused("starting", self.upstreams[0].starting())
        limit, wait_s = self._admission.limit, self._admission.retry_after_s(RETRY_AFTER_S)
        words = f"{limit} requests are in flight, as many as the limit"
        return self._refused("capacity", unavailable(words, wait_s))

    def _too_late(self, left_s: float, expected_s: float | None) -> CallError:
        expected = (
            "" if expected_s is None else f"; the clip is expected to take {expected_s:.1f} s"
        )
        error = deadline_passed()
        words = f"the deadline leaves {max(0.0, left_s):.1f} s{expected}"
        return self._refused("deadline", CallError(error.code, words))

    def _refused(self, reason: str, error: CallError) -> CallError:
        self.recorder.count(REFUSALS, reason=reason)
        self.recorder.count(REQUESTS, outcome="refused")
        return error
