"""Encodes the frames of a clip as MP4; the last stage of `text_to_video`."""

import json
from pathlib import Path

from reelserve.pipeline.checkpoint import CheckpointSpec
from reelserve.server.clip_output import finish_clip, installed_versions
from reelserve.server.device_tensor import has_gpu
from reelserve.server.parameters import Parameters
from reelserve.server.triton_io import (
    check_not_cancelled,
    input_tensors,
    response,
    stage_error_response,
)


class TritonPythonModel:
    """In: FRAMES `[1, F, H, W, 3]` UINT8, on the host or a GPU; the resolved fields, `[1, 1]`.

    Out: VIDEO `[1, 1]` STRING, the bytes of an MP4 file; INFO `[1, 1]` STRING, JSON.
    """

    def initialize(self, args):
        """Reads what INFO says about the checkpoint and the installation."""
        folder = Path(args["model_repository"]) / args["model_version"]
        self._spec = CheckpointSpec.load(folder)
        self._versions = installed_versions()
        parameters = Parameters(json.loads(args["model_config"]))
        self._threads = parameters.integer("encoder_threads", 1)
        if parameters.switch("warm_up", default=False) and has_gpu():
            # Imports torch, which a server without a GPU need not have.
            from reelserve.server import device_video

            device_video.warm_up(self._threads)

    def execute(self, requests):
        """Answers every request by itself."""
        return [self._answer(request) for request in requests]

    def _answer(self, request):
        try:
            check_not_cancelled(request)
            inputs = input_tensors(request)
            return response(finish_clip(inputs, self._spec, self._versions, self._threads))
        except Exception as error:
            return stage_error_response(error, request)
