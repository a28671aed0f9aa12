"""The outputs of a request: the MP4 and what is said about it."""

from __future__ import annotations

import importlib
import json
import os
from collections.abc import Callable, Mapping
from importlib import metadata
from typing import Any

import numpy as np
from numpy.typing import NDArray

from reelserve.pipeline.checkpoint import CheckpointSpec
from reelserve.pipeline.request import check_int, integer_limits
from reelserve.server.device_tensor import AnyTensor
from reelserve.server.errors import StageError
from reelserve.server.stages.video import DEFAULT, EncoderSettings, encode_mp4

VERSIONED_PACKAGES = (
    "reelserve",
    "nvidia-pytriton",
    "numpy",
    "onnxruntime",
    "onnxruntime-gpu",
    "torch",
    "av",
    "tokenizers",
)
TRITON_VERSION_VARIABLE = "TRITON_SERVER_VERSION"
"""Set in NVIDIA's containers."""
GUIDANCE_DECIMALS = 4
"""FP32 cannot hold 2.3; what is shown should be what was asked for."""


def installed_versions() -> dict[str, str]:
    """Versions of the packages that shape a clip, of those that are installed."""
    versions = {}
    for package in VERSIONED_PACKAGES:
        try:
            versions[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    if TRITON_VERSION_VARIABLE in os.environ:
        versions["tritonserver"] = os.environ[TRITON_VERSION_VARIABLE]
    return versions


def finish_clip(
    inputs: Mapping[str, Any],
    spec: CheckpointSpec,
    versions: Mapping[str, str],
    settings: EncoderSettings = DEFAULT,
) -> dict[str, NDArray[Any]]:
    """Encodes a clip.

    Args:
        inputs: Inputs of the `video_encoder` stage by name, first dimension 1; its frames in the
            host's memory or on a GPU.
        spec: The served checkpoint.
        versions: Shown in INFO.
        settings: Threads and quality.

    Returns:
        VIDEO and INFO, `[1]`; the front end fills in the seconds of INFO.

    Raises:
        ValueError: If the clip is larger than any request of the checkpoint makes it.
        StageError: If the frames have not the size that was asked for.
    """
    frames, encode = _frames_and_encoder(inputs["FRAMES"])
    limits = integer_limits(spec.limits)
    fps, height, width = (
        check_int(name, inputs[name].item(), limits[name]) for name in ("FPS", "HEIGHT", "WIDTH")
    )
    seed, steps = (int(inputs[name].item()) for name in ("SEED", "NUM_INFERENCE_STEPS"))
    if len(frames) > (most := spec.limits.num_frames.high):
        raise ValueError(f"FRAMES holds {len(frames)} frames; the limit is {most}")
    if frames.shape[1:3] != (height, width):
        raise StageError(
            f"upsampler gave frames of {frames.shape[1]} rows and {frames.shape[2]} columns; "
            f"asked for were {height} and {width}: the exported stages do not fit together"
        )
    video = encode(frames, fps, settings)
    info = {
        "seed": seed,
        "num_inference_steps": steps,
        "guidance_scale": round(float(inputs["GUIDANCE_SCALE"].item()), GUIDANCE_DECIMALS),
        "num_frames": len(frames),
        "fps": fps,
        "height": height,
        "width": width,
        "checkpoint": spec.name,
        "engine": spec.engine,
        "versions": dict(versions),
        "seconds": {},
    }
    return {
        "VIDEO": np.array([video], np.object_),
        "INFO": np.array([json.dumps(info).encode()], np.object_),
    }


def _frames_and_encoder(
    frames: AnyTensor,
) -> tuple[Any, Callable[[Any, int, EncoderSettings], bytes]]:
    """The frames of one clip, `[F, H, W, 3]`, and what encodes them where they are."""
    if isinstance(frames, np.ndarray):
        return frames[0], encode_mp4
    # Needs torch, which a server whose stages compute on a CPU does without.
    device_video = importlib.import_module("reelserve.server.stages.device_video")
    return device_video.frames_of(frames), device_video.encode_device_mp4
