"""The two public models: a conductor inside a Triton stage."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from typing import Any

from reelserve.pipeline.contract import StageContract
from reelserve.server.board import Board
from reelserve.server.clip_run import StageCall
from reelserve.server.conductor import Conductor, ConductorSettings
from reelserve.server.device_tensor import AnyTensors
from reelserve.server.listeners import StreamListener
from reelserve.server.metrics import TritonRecorder
from reelserve.server.parameters import Parameters
from reelserve.server.triton_io import (
    call_model,
    call_model_in_place,
    check_not_sequence,
    input_arrays,
)

THREADS_PER_CLIP = 4
"""One watches, one calls the stages; a cancelled clip leaves one of each for a while."""


class PublicModel:
    """Accepts requests and leads them; what follows is sent from the conductor's threads.

    Args:
        args: Of `TritonPythonModel.initialize`.
        listener: How a client of this model is told things.
    """

    def __init__(self, args: Mapping[str, str], listener: type[StreamListener]) -> None:
        parameters = Parameters(json.loads(args["model_config"]))
        settings = ConductorSettings(
            max_requests_in_flight=parameters.integer("max_requests_in_flight", 1),
            share_answers_s=parameters.integer("share_answers_seconds", 0),
        )
        self._listener = listener
        self._conductor = Conductor(
            call_for,
            Board.of_server(os.getppid()),
            settings,
            TritonRecorder(settings.max_requests_in_flight),
            max_threads=THREADS_PER_CLIP * settings.max_requests_in_flight,
        )

    def accept(self, requests: Sequence[Any]) -> None:
        """Accepts or refuses every request by itself."""
        for request in requests:
            listener = self._listener(request)
            try:
                check_not_sequence(request)
                self._conductor.accept(input_arrays(request), listener)
            except Exception as error:
                listener.fail(error)

    def close(self) -> None:
        """Ends what is in flight."""
        self._conductor.close()


def call_for(key: str, *, in_place: bool = True) -> StageCall:
    """How to call the stages for the clip with this key.

    Args:
        key: Of the clip.
        in_place: Leaves on a GPU what a stage leaves there.
    """
    model = call_model_in_place if in_place else call_model

    def call(stage: StageContract, inputs: AnyTensors) -> AnyTensors:
        return model(stage.name, inputs, [spec.name for spec in stage.outputs], key=key)

    return call
