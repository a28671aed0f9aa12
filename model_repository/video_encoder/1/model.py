"""Encodes the frames of a clip as MP4; the last stage of `text_to_video`."""

from pathlib import Path

from reelserve.pipeline.checkpoint import CheckpointSpec
from reelserve.server.clip_output import finish_clip, installed_versions
from reelserve.server.triton_io import (
    check_not_cancelled,
    input_arrays,
    response,
    stage_error_response,
)


class TritonPythonModel:
    """In: FRAMES `[F, H, W, 3]` UINT8; the resolved fields, `[1]`.

    Out: VIDEO `[1]` STRING, the bytes of an MP4 file; INFO `[1]` STRING, JSON.
    """

    def initialize(self, args):
        """Reads what INFO says about the checkpoint and the installation."""
        folder = Path(args["model_repository"]) / args["model_version"]
        self._spec = CheckpointSpec.load(folder)
        self._versions = installed_versions()

    def execute(self, requests):
        """Answers every request by itself."""
        return [self._answer(request) for request in requests]

    def _answer(self, request):
        try:
            check_not_cancelled(request)
            return response(finish_clip(input_arrays(request), self._spec, self._versions))
        except Exception as error:
            return stage_error_response(error, request)
