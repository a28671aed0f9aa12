"""A conductor inside a Triton stage."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from typing import Any

from numpy.typing import NDArray

from reelserve.pipeline.contract import StageContract
from reelserve.server.board import Board
from reelserve.server.clip_run import StageCall
from reelserve.server.conductor import Conductor, ConductorSettings
from reelserve.server.metrics import TritonRecorder
from reelserve.server.session_settings import Parameters
from reelserve.server.triton_io import call_model


def conductor_of(args: Mapping[str, str], threads_per_clip: int, clips: int = 0) -> Conductor:
    """The conductor of one process of a public model.

    Args:
        args: Of `TritonPythonModel.initialize`.
        threads_per_clip: Threads for each clip that this process may lead.
        clips: How many that are; 0 for all that the service accepts.
    """
    parameters = Parameters(json.loads(args["model_config"]))
    settings = ConductorSettings(
        max_requests_in_flight=parameters.integer("max_requests_in_flight", 1),
        share_answers_s=parameters.integer("share_answers_seconds", 0),
    )
    return Conductor(
        call_for,
        Board.of_server(os.getppid()),
        settings,
        TritonRecorder(),
        max_threads=threads_per_clip * (clips or settings.max_requests_in_flight),
    )


def call_for(key: str) -> StageCall:
    """How to call the stages for the clip with this key."""

    def call(
        stage: StageContract, inputs: Mapping[str, NDArray[Any]]
    ) -> Mapping[str, NDArray[Any]]:
        return call_model(stage.name, inputs, [spec.name for spec in stage.outputs], key=key)

    return call
