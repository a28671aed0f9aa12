"""A request that is answered after `execute` has returned; importable inside a stage only."""

from __future__ import annotations

import time

import triton_python_backend_utils as pb_utils

from reelserve.server.device_tensor import AnyTensors
from reelserve.server.progress import ProgressFolder
from reelserve.server.stages.diffusion import DiffusionClip
from reelserve.server.triton_io import clip_key, error_response, response

PREVIEW_FRAMES = 4
"""Latent frames that a first picture is decoded from: as few as a request may ask for."""


class LateAnswer:
    """The answer to one request of `video_diffusion`.

    Args:
        request: Request as Triton hands it over.
        stage: Stage that answers.
        progress: Told of steps and of the end.
    """

    def __init__(
        self, request: pb_utils.InferenceRequest, stage: str, progress: ProgressFolder
    ) -> None:
        self._request, self._stage, self._progress = request, stage, progress
        self._key, self._sender = clip_key(request), request.get_response_sender()
        self._began = time.monotonic()

    def cancelled(self) -> bool:
        """Whether nobody waits any more. Triton itself does not tell a step of an ensemble."""
        return self._progress.is_cancelled(self._key)

    def stepped(self, clip: DiffusionClip, began: float) -> None:
        """Tells how far the clip is, and leaves a first look at it half-way."""
        sampler = clip.sampler
        self._progress.stepped(self._key, sampler.step, sampler.num_steps, began)
        if sampler.step == -(-sampler.num_steps // 2):
            middle = max(0, (sampler.denoised.shape[1] - PREVIEW_FRAMES) // 2)
            look = sampler.denoised[:, middle : middle + PREVIEW_FRAMES]
            self._progress.leave_preview(self._key, look)

    def finish(self, outputs: AnyTensors) -> None:
        """Answers."""
        self._progress.stage_ended(self._key, self._stage, self._began)
        self._send(response(outputs))

    def fail(self, error: Exception) -> None:
        """Answers with an error."""
        self._send(error_response(error, self._request, self._stage))

    def _send(self, answer: pb_utils.InferenceResponse) -> None:
        try:
            self._sender.send(answer, pb_utils.TRITONSERVER_RESPONSE_COMPLETE_FINAL)
        except Exception as problem:
            pb_utils.Logger.log_warn(f"a response could not be sent: {problem}")
