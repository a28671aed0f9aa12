"""Encodes the frames of a clip as MP4; the last stage of `text_to_video`."""

from __future__ import annotations

import json
from pathlib import Path

import triton_python_backend_utils as pb_utils

from reelserve.pipeline.checkpoint import CheckpointSpec
from reelserve.server.device_tensor import AnyTensors, has_gpu
from reelserve.server.parameters import Parameters
from reelserve.server.progress import ProgressFolder
from reelserve.server.stages.clip_output import finish_clip, installed_versions
from reelserve.server.stages.frames_in_place import frames_in_place
from reelserve.server.stages.video import CRF, EncoderSettings
from reelserve.server.triton_io import answer_each, clip_key, input_tensors


class TritonPythonModel:
    """In: FRAMES `[1, F, H, W, 3]` UINT8, on the host or a GPU; the resolved fields, `[1, 1]`.

    Or LATENTS `[1, C, F, H, W]` FP32 in place of FRAMES: the stages between are called from here,
    so that frames stay in a GPU's memory.

    Out: VIDEO `[1]` STRING, the bytes of an MP4 file; INFO `[1]` STRING, JSON.
    """

    def initialize(self, args: dict[str, str]) -> None:
        """Reads what INFO says about the checkpoint and the installation."""
        self._spec = CheckpointSpec.load(Path(args["model_repository"]) / args["model_version"])
        self._versions = installed_versions()
        self._progress = ProgressFolder.from_environment()
        parameters = Parameters(json.loads(args["model_config"]))
        self._settings = EncoderSettings(
            parameters.integer("encoder_threads", 1), parameters.integer("encoder_crf", CRF)
        )
        if parameters.switch("warm_up", default=False) and has_gpu():
            # Imports torch, which a server without a GPU need not have.
            from reelserve.server.stages import device_video

            device_video.warm_up(self._settings)

    def execute(
        self, requests: list[pb_utils.InferenceRequest]
    ) -> list[pb_utils.InferenceResponse]:
        """Answers every request by itself."""
        return answer_each(requests, "video_encoder", self._progress, self._encode)

    def _encode(self, request: pb_utils.InferenceRequest) -> AnyTensors:
        inputs = input_tensors(request)
        if "FRAMES" not in inputs:
            inputs["FRAMES"] = frames_in_place(inputs, clip_key(request), self._progress)
        return finish_clip(inputs, self._spec, self._versions, self._settings)
