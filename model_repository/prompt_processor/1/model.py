"""Validates a request and tokenizes its prompts; the first stage of `text_to_video`."""

from __future__ import annotations

from pathlib import Path

import triton_python_backend_utils as pb_utils

from reelserve.pipeline.checkpoint import CheckpointSpec
from reelserve.server.device_tensor import AnyTensors
from reelserve.server.progress import ProgressFolder
from reelserve.server.prompts import FILE_NAME, PromptTokenizer, process_prompt
from reelserve.server.triton_io import answer_each, input_arrays


class TritonPythonModel:
    """In: the public request, all optional to Triton, no batch dimension, one element each.

    PROMPT, NEGATIVE_PROMPT, PRIORITY STRING; SEED INT64; NUM_INFERENCE_STEPS, NUM_FRAMES, FPS,
    HEIGHT, WIDTH INT32; GUIDANCE_SCALE FP32.

    Out: INPUT_IDS, ATTENTION_MASK `[1, 2, L]` INT64; every numeric field above, resolved, and
    PRIORITY_RANK INT32, `[1, 1]`.
    """

    def initialize(self, args: dict[str, str]) -> None:
        """Reads the request limits and the tokenizer of the checkpoint."""
        folder = Path(args["model_repository"]) / args["model_version"]
        self._limits = CheckpointSpec.load(folder).limits
        self._tokenizer = PromptTokenizer(folder / FILE_NAME, self._limits.max_prompt_tokens)
        self._progress = ProgressFolder.from_environment()

    def execute(
        self, requests: list[pb_utils.InferenceRequest]
    ) -> list[pb_utils.InferenceResponse]:
        """Answers every request by itself."""
        return answer_each(requests, "prompt_processor", self._progress, self._process)

    def _process(self, request: pb_utils.InferenceRequest) -> AnyTensors:
        return process_prompt(input_arrays(request), self._limits, self._tokenizer)
