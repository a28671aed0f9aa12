"""The way of one clip through every stage, from the request to the MP4."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any

from numpy.typing import NDArray

from reelserve.pipeline.contract import STAGES, StageContract

Tensors = dict[str, NDArray[Any]]
StageCall = Callable[[StageContract, Mapping[str, NDArray[Any]]], Mapping[str, NDArray[Any]]]
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
    before_stage: Callable[[str, Mapping[str, NDArray[Any]]], None],
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
    tensors: Tensors = dict(request)
    for name in STAGE_ORDER:
        before_stage(name, tensors)
        started = time.monotonic()
        outputs = call_stage(STAGES[name], tensors, call)
        after_stage(name, time.monotonic() - started)
        tensors.update({PASSED_ON_AS.get(key, key): array for key, array in outputs.items()})
    return {name: tensors[name] for name in ("VIDEO", "INFO")}


def call_stage(
    stage: StageContract, tensors: Mapping[str, NDArray[Any]], call: StageCall
) -> dict[str, NDArray[Any]]:
    """Calls one stage with the tensors that it takes, for one clip.

    Args:
        stage: Its contract; absent optional inputs stay absent.
        tensors: By name, without a batch dimension.
        call: Calls it.

    Returns:
        Its outputs by name, without a batch dimension.
    """
    inputs = {spec.name: tensors[spec.name] for spec in stage.inputs if spec.name in tensors}
    if stage.batched:
        inputs = {name: array[None] for name, array in inputs.items()}
    outputs = call(stage, inputs)
    return {name: array[0] if stage.batched else array for name, array in outputs.items()}
