"""The way of one clip through every stage, from the request to the MP4."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from reelserve.pipeline.contract import STAGES, StageContract
from reelserve.server.device_tensor import AnyTensor, AnyTensors

Tensors = dict[str, NDArray[Any]]
StageCall = Callable[[StageContract, AnyTensors], AnyTensors]
"""Calls a stage with its inputs by name and gives its outputs; batch dimension where it has one."""

STAGE_ORDER = (
    "prompt_processor",
    "text_encoder",
    "video_diffusion",
    "vae_decoder",
    "frame_consistency",
    "upsampler",
    "video_encoder",
)
PASSED_ON_AS = {"CONSISTENT_FRAMES": "FRAMES", "UPSAMPLED_FRAMES": "FRAMES"}
"""Outputs that the next stages know by another name."""


def run_stages(
    request: Mapping[str, NDArray[Any]],
    call: StageCall,
    before_stage: Callable[[str, Mapping[str, Any]], None],
    after_stage: Callable[[str, float], None],
) -> Tensors:
    """Draws a clip.

    Args:
        request: Inputs of `text_to_video` by name, without a batch dimension.
        call: Calls a stage.
        before_stage: Told the stage and what is known so far; what it raises ends the run.
        after_stage: Told the stage and its seconds, waiting included.

    Returns:
        VIDEO and INFO by name.
    """
    tensors: dict[str, Any] = dict(request)
    try:
        for name in STAGE_ORDER:
            before_stage(name, tensors)
            started = time.monotonic()
            outputs = call_stage(STAGES[name], tensors, call)
            after_stage(name, time.monotonic() - started)
            # Frames replace those of the stage before, whose memory is free from here on.
            tensors.update({PASSED_ON_AS.get(key, key): outputs.pop(key) for key in list(outputs)})
        return {name: tensors[name] for name in ("VIDEO", "INFO")}
    finally:
        # An error that is kept holds this frame, and with it a clip on a GPU.
        tensors.clear()


def call_stage(stage: StageContract, tensors: AnyTensors, call: StageCall) -> dict[str, AnyTensor]:
    """Calls one stage with the tensors that it takes, for one clip.

    Args:
        stage: Its contract; absent optional inputs stay absent.
        tensors: By name, without a batch dimension. A tensor on a GPU, which only stages with one
            give and take, keeps its batch dimension of 1 from stage to stage.
        call: Calls it.

    Returns:
        Its outputs by name, like `tensors`.
    """
    inputs = {spec.name: tensors[spec.name] for spec in stage.inputs if spec.name in tensors}
    if not stage.batched:
        return dict(call(stage, inputs))
    outputs = call(stage, {name: _with_batch(tensor) for name, tensor in inputs.items()})
    return {name: _without_batch(tensor) for name, tensor in outputs.items()}


def _with_batch(tensor: AnyTensor) -> AnyTensor:
    return tensor[None] if isinstance(tensor, np.ndarray) else tensor


def _without_batch(tensor: AnyTensor) -> AnyTensor:
    return tensor[0] if isinstance(tensor, np.ndarray) else tensor
