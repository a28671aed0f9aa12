"""Leads every request through the stages and tells how far it is: the public model, streamed."""

import json
import os

from reelserve.server.board import Board
from reelserve.server.conductor import Conductor, ConductorSettings
from reelserve.server.listeners import StreamListener
from reelserve.server.metrics import TritonRecorder
from reelserve.server.session_settings import Parameters
from reelserve.server.triton_io import call_model, check_not_sequence, input_arrays


class TritonPythonModel:
    """In: the public request, one element each; see `prompt_processor`.

    Out, in many responses: EVENT `[1]` STRING, JSON, always; PREVIEW `[1]` STRING, a PNG file;
    in the last one VIDEO and INFO, as `text_to_video` gives them.
    """

    def initialize(self, args):
        """Reads the bounds of the service."""
        parameters = Parameters(json.loads(args["model_config"]))
        settings = ConductorSettings(
            max_requests_in_flight=parameters.integer("max_requests_in_flight", 1),
            share_answers_s=parameters.integer("share_answers_seconds", 0),
        )
        self._board = Board.of_server(os.getppid())
        self._conductor = Conductor(_caller, self._board, settings, TritonRecorder())

    def execute(self, requests):
        """Accepts or refuses; what follows is sent from the conductor's threads."""
        for request in requests:
            listener = StreamListener(request, self._board)
            try:
                check_not_sequence(request)
                self._conductor.accept(input_arrays(request), listener)
            except Exception as error:
                listener.fail(error)

    def finalize(self):
        """Ends what is in flight."""
        self._conductor.close()


def _caller(key):
    """How to call the stages for one clip."""

    def call(stage, inputs):
        names = [spec.name for spec in stage.outputs]
        return call_model(stage.name, inputs, names, key=key)

    return call
