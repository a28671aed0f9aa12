"""Denoises the latents of every request in flight, step by step."""

import json
import os
from pathlib import Path

import triton_python_backend_utils as pb_utils

from reelserve.pipeline.checkpoint import CheckpointSpec
from reelserve.server.board import Board
from reelserve.server.diffusion import ClipTable, clip_from_inputs
from reelserve.server.errors import CancelledError
from reelserve.server.metrics import StepRecorder
from reelserve.server.parameters import Parameters
from reelserve.server.places import Places
from reelserve.server.steps import FreeSteps, JoinedSteps
from reelserve.server.triton_io import (
    call_key,
    call_model,
    check_not_cancelled,
    input_arrays,
    response,
    stage_error_response,
)

MICROSECONDS_PER_SECOND = 1_000_000
PREVIEW_FRAMES = 4
"""Latent frames that a first picture is decoded from: as few as a request may ask for."""


class TritonPythonModel:
    """In, one row a request: PROMPT_EMBEDS `[1, 2, L, E]` FP32; ATTENTION_MASK `[1, 2, L]` INT64.

    SEED INT64, NUM_INFERENCE_STEPS, NUM_FRAMES, HEIGHT, WIDTH, PRIORITY_RANK INT32,
    GUIDANCE_SCALE FP32, all `[1, 1]`.

    Out: LATENTS `[1, C, F, H, W]` FP32.

    Triton schedules a request again for every step (`iterative_sequence`), together with all
    others that are in flight at that moment. The key of a stage's request is the clip's on the
    board.
    """

    def initialize(self, args):
        """Reads the latent shape of the checkpoint and the bounds of this stage."""
        config = json.loads(args["model_config"])
        parameters = Parameters(config)
        idle = int(config["sequence_batching"]["max_sequence_idle_microseconds"])
        self._spec = CheckpointSpec.load(Path(args["model_repository"]) / args["model_version"])
        self._board, self._recorder = Board.of_server(os.getppid()), StepRecorder()
        max_active = parameters.integer("max_active_requests", 1)
        steps = (self._denoise, parameters.integer("denoiser_max_batch_size", 1), self._recorder)
        if parameters.switch("join_requests", default=True):
            self._steps = JoinedSteps(*steps)
        else:
            self._steps = FreeSteps(*steps, max_active)
        self._clips = ClipTable(
            max_active=max_active,
            max_in_flight=parameters.integer("max_requests_in_flight", 1),
            max_idle_s=idle / MICROSECONDS_PER_SECOND,
            on_drop=self._steps.forget,
        )
        places = Places(self._board.folder, self._clips.max_in_flight)
        places.share_among(max_active)

    def execute(self, requests):
        """Takes steps; a request gets its response, its error, or another round."""
        responses = [None] * len(requests)
        places, clips = {}, {}
        for index, request in enumerate(requests):
            try:
                clip = self._clip(request)
            except Exception as error:
                responses[index] = self._end(request, stage_error_response(error, request))
            else:
                places[request.correlation_id()], clips[request.correlation_id()] = index, clip
        active = self._clips.active()
        turn = {key: clip for key, clip in clips.items() if key in active}
        for key, failure in self._steps.take(turn, set(clips)).items():
            index = places[key]
            responses[index] = self._after_step(requests[index], clips[key], failure)
        self._recorder.held(len(self._clips.active()), len(self._clips))
        for request, answer in zip(requests, responses, strict=True):
            if answer is None:
                request.set_release_flags(pb_utils.TRITONSERVER_REQUEST_RELEASE_RESCHEDULE)
        return responses

    def _clip(self, request):
        """The state of a request, made when Triton schedules it for the first time."""
        check_not_cancelled(request)
        if self._board.is_cancelled(call_key(request)):
            raise CancelledError("the request was cancelled")
        if request.flags() & pb_utils.TRITONSERVER_REQUEST_FLAG_SEQUENCE_END:
            # Triton could not schedule it again and would never answer it.
            raise ValueError("sequence_end is set; video_diffusion takes requests without it")
        if not request.flags() & pb_utils.TRITONSERVER_REQUEST_FLAG_SEQUENCE_START:
            return self._clips.find(request.correlation_id())
        return self._clips.admit(
            request.correlation_id(), lambda: clip_from_inputs(input_arrays(request), self._spec)
        )

    def _after_step(self, request, clip, failure):
        """The response to a request whose clip has taken a step; None if it needs another."""
        if failure is not None:
            return self._end(request, stage_error_response(failure, request))
        answer = self._end(request, response(clip.outputs())) if clip.sampler.done else None
        self._report(call_key(request), clip.sampler)
        return answer

    def _report(self, key, sampler):
        """Says on the board how far a clip is, and leaves a first look at it half-way."""
        if not key:
            return
        self._board.report(key, sampler.step, sampler.num_steps)
        if sampler.step == -(-sampler.num_steps // 2):
            middle = max(0, (sampler.denoised.shape[1] - PREVIEW_FRAMES) // 2)
            self._board.leave_preview(key, sampler.denoised[:, middle : middle + PREVIEW_FRAMES])

    def _end(self, request, answer):
        self._clips.drop(request.correlation_id())
        return answer

    def _denoise(self, inputs):
        """Calls the `denoiser` stage."""
        return call_model("denoiser", inputs, outputs=["VELOCITY"])
