"""Leads latents to frames by calling the stages between, in the memory where they compute."""

from __future__ import annotations

from reelserve.pipeline.contract import STAGES
from reelserve.server.device_tensor import AnyTensor, AnyTensors
from reelserve.server.progress import ProgressFolder
from reelserve.server.triton_io import call_model_in_place

FRAME_STAGES = ("vae_decoder", "frame_consistency", "upsampler")


def frames_in_place(inputs: AnyTensors, key: str, progress: ProgressFolder) -> AnyTensor:
    """Decodes, removes flicker and enlarges; nothing of it passes through the host.

    Args:
        inputs: With LATENTS `[1, C, F, H, W]`.
        key: Key of the clip.
        progress: Looked at before every stage.

    Returns:
        Frames `[1, F, H, W, 3]`, where the last stage has left them.

    Raises:
        ValueError: If there are no latents.
        ClipCancelledError: If nobody waits for the clip any more.
        StageError: If a stage fails.
    """
    if "LATENTS" not in inputs:
        raise ValueError("FRAMES is missing; it must hold 1 clip")
    tensor = inputs["LATENTS"]
    for name in FRAME_STAGES:
        progress.check_not_cancelled(key)
        (source,), (result,) = STAGES[name].inputs, STAGES[name].outputs
        # The frames of the stage before are freed here.
        tensor = call_model_in_place(name, {source.name: tensor}, [result.name], key=key)[
            result.name
        ]
    return tensor
