"""Denoises the latents of every request in flight, one step of all of them a round."""

import json
from pathlib import Path

import triton_python_backend_utils as pb_utils

from reelserve.pipeline.checkpoint import CheckpointSpec
from reelserve.server.diffusion import ClipTable, clip_from_inputs, denoise_step
from reelserve.server.session_settings import Parameters
from reelserve.server.triton_io import (
    call_model,
    check_not_cancelled,
    error_response,
    input_arrays,
    response,
)

MICROSECONDS_PER_SECOND = 1_000_000


class TritonPythonModel:
    """In, one row a request: PROMPT_EMBEDS `[1, 2, L, E]` FP32; ATTENTION_MASK `[1, 2, L]` INT64.

    SEED INT64, NUM_INFERENCE_STEPS, NUM_FRAMES, HEIGHT, WIDTH INT32, GUIDANCE_SCALE FP32, all
    `[1, 1]`; STAGE_TIMES `[1, 2]` FP64.

    Out: LATENTS `[1, C, F, H, W]` FP32; STAGE_TIMES `[1, 4]` FP64.

    Triton schedules a request again for every step (`iterative_sequence`), together with all
    others that are in flight at that moment.
    """

    def initialize(self, args):
        """Reads the latent shape of the checkpoint and the bounds of this stage."""
        config = json.loads(args["model_config"])
        parameters = Parameters(config)
        idle = int(config["sequence_batching"]["max_sequence_idle_microseconds"])
        self._spec = CheckpointSpec.load(Path(args["model_repository"]) / args["model_version"])
        self._max_rows = parameters.integer("denoiser_max_batch_size", 1)
        self._clips = ClipTable(
            max_active=parameters.integer("max_active_requests", 1),
            max_in_flight=parameters.integer("max_requests_in_flight", 1),
            max_idle_s=idle / MICROSECONDS_PER_SECOND,
        )

    def execute(self, requests):
        """Takes one step; a request gets its response, its error, or another round."""
        responses = [None] * len(requests)
        clips = {}
        for index, request in enumerate(requests):
            try:
                clips[index] = self._clip(request)
            except Exception as error:
                responses[index] = self._end(request, error_response(error))
        active = self._clips.active()
        turn = [index for index in clips if requests[index].correlation_id() in active]
        failures = denoise_step([clips[index] for index in turn], self._denoise, self._max_rows)
        for index, failure in zip(turn, failures, strict=True):
            if failure is not None:
                responses[index] = self._end(requests[index], error_response(failure))
            elif clips[index].sampler.done:
                responses[index] = self._end(requests[index], response(clips[index].outputs()))
        for request, answer in zip(requests, responses, strict=True):
            if answer is None:
                request.set_release_flags(pb_utils.TRITONSERVER_REQUEST_RELEASE_RESCHEDULE)
        return responses

    def _clip(self, request):
        """The state of a request, made when Triton schedules it for the first time."""
        check_not_cancelled(request)
        if request.flags() & pb_utils.TRITONSERVER_REQUEST_FLAG_SEQUENCE_END:
            # Triton could not schedule it again and would never answer it.
            raise ValueError("sequence_end is set; video_diffusion takes requests without it")
        if not request.flags() & pb_utils.TRITONSERVER_REQUEST_FLAG_SEQUENCE_START:
            return self._clips.find(request.correlation_id())
        return self._clips.admit(
            request.correlation_id(), lambda: clip_from_inputs(input_arrays(request), self._spec)
        )

    def _end(self, request, answer):
        self._clips.drop(request.correlation_id())
        return answer

    def _denoise(self, inputs):
        """Calls the `denoiser` stage."""
        return call_model("denoiser", inputs, outputs=["VELOCITY"])
