"""Denoises the latents of every request in flight, step by step."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path

import triton_python_backend_utils as pb_utils

from reelserve.pipeline.checkpoint import CheckpointSpec
from reelserve.server.batching import Arrays
from reelserve.server.parameters import Parameters
from reelserve.server.progress import ProgressFolder
from reelserve.server.stages.diffusion import clip_from_inputs
from reelserve.server.stages.late_answer import LateAnswer
from reelserve.server.stages.step_metrics import StepRecorder
from reelserve.server.stages.steps import DenoisingLoop, LoopSettings
from reelserve.server.triton_io import call_model, input_arrays


class TritonPythonModel:
    """In: PROMPT_EMBEDS `[1, 2, L, E]` FP32; ATTENTION_MASK `[1, 2, L]` INT64.

    SEED INT64, NUM_INFERENCE_STEPS, NUM_FRAMES, HEIGHT, WIDTH, PRIORITY_RANK INT32,
    GUIDANCE_SCALE FP32, all `[1, 1]`.

    Out: LATENTS `[1, C, F, H, W]` FP32, when its steps are taken.
    """

    def initialize(self, args: dict[str, str]) -> None:
        """Reads the latent shape of the checkpoint and the bounds of this stage."""
        parameters = Parameters(json.loads(args["model_config"]))
        settings = LoopSettings(
            max_active=parameters.integer("max_active_requests", 1),
            max_in_flight=parameters.integer("max_requests_in_flight", 1),
            max_rows=parameters.integer("denoiser_max_batch_size", 1),
            join=parameters.switch("join_requests", default=True),
        )
        self._spec = CheckpointSpec.load(Path(args["model_repository"]) / args["model_version"])
        self._progress = ProgressFolder.from_environment()
        self._recorder = StepRecorder()
        self._loop = DenoisingLoop(self._denoise, settings, self._recorder)

    def execute(self, requests: list[pb_utils.InferenceRequest]) -> None:
        """Takes requests in; the loop answers them later, from its threads."""
        for request in requests:
            answer = LateAnswer(request, "video_diffusion", self._progress)
            try:
                inputs = input_arrays(request)
                self._loop.admit(partial(clip_from_inputs, inputs, self._spec), answer)
            except Exception as error:
                answer.fail(error)

    def finalize(self) -> None:
        """Ends what is in flight."""
        self._loop.close()
        self._recorder.close()

    def _denoise(self, inputs: Arrays) -> Arrays:
        """Calls the `denoiser` stage."""
        return call_model("denoiser", inputs, outputs=["VELOCITY"])
