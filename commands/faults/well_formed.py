"""Small requests of every model that nothing is wrong with, for others to spoil."""

from __future__ import annotations

import random
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tritonclient.grpc import service_pb2

from reelserve.pipeline.checkpoint import CheckpointSpec
from reelserve.pipeline.contract import PUBLIC_MODELS, STAGES, TensorSpec

WIRE_TYPES = {"STRING": "BYTES"}
NUMPY_TYPES: dict[str, type[np.generic]] = {
    "INT64": np.int64,
    "INT32": np.int32,
    "FP32": np.float32,
    "UINT8": np.uint8,
}
TIMEOUT_US = 20_000_000
"""Of requests for a clip: what turns out valid by chance must not hold a place for long."""
DECODED_PX = 32
"""Rows and columns of frames for the stages behind the decoder."""


@dataclass(frozen=True)
class Shapes:
    """What well-formed tensors of a checkpoint look like.

    Args:
        spec: The checkpoint.
        embed_width: `E`.
    """

    spec: CheckpointSpec
    embed_width: int

    def of(self, tensor: TensorSpec) -> tuple[int, ...]:
        """Shape of a small clip's tensor, no batch dimension."""
        limits, latents = self.spec.limits, self.spec.latents
        tokens = limits.max_prompt_tokens
        known: Mapping[str, tuple[int, ...]] = {
            "LATENTS": (
                latents.channels,
                latents.frames(limits.num_frames.low),
                limits.height.low // latents.spatial_compression,
                limits.width.low // latents.spatial_compression,
            ),
            "INPUT_IDS": (2, tokens),
            "ATTENTION_MASK": (2, tokens),
            "PROMPT_EMBEDS": (2, tokens, self.embed_width),
            "FRAMES": (limits.num_frames.low, DECODED_PX, DECODED_PX, 3),
        }
        shape = known.get(tensor.name, (1,))
        # The denoiser takes one prompt a row.
        return shape[len(shape) - len(tensor.dims) :]


def well_formed(model: str, shapes: Shapes, rng: random.Random) -> Any:
    """A request that the model answers, soon.

    Args:
        model: Its name.
        shapes: Of the served checkpoint.
        rng: Draws what does not matter.

    Returns:
        A `ModelInferRequest` with raw contents.
    """
    stage = STAGES[model]
    request = service_pb2.ModelInferRequest(model_name=model)
    for spec in stage.inputs:
        values = _values(spec, shapes, rng)
        if model == "video_encoder" and spec.name in ("HEIGHT", "WIDTH"):
            values[:] = DECODED_PX
        leading = (1,) if stage.batched else ()
        request.inputs.add(
            name=spec.name,
            datatype=WIRE_TYPES.get(spec.dtype, spec.dtype),
            shape=(*leading, *values.shape),
        )
        request.raw_input_contents.append(b"")
        if spec.dtype == "STRING":
            set_raw(request, len(request.inputs) - 1, values.item())
        else:
            request.raw_input_contents[-1] = values.tobytes()
    if model in PUBLIC_MODELS:
        request.parameters["timeout"].int64_param = TIMEOUT_US
    return request


def set_raw(request: Any, index: int, text: bytes) -> None:
    """Puts a text into an input as Triton wants it: its length, then itself."""
    request.raw_input_contents[index] = struct.pack("<I", len(text)) + text


def _values(spec: TensorSpec, shapes: Shapes, rng: random.Random) -> NDArray[Any]:
    limits = shapes.spec.limits
    fixed: Mapping[str, Any] = {
        "PROMPT": b"a red star",
        "NEGATIVE_PROMPT": b"blue",
        "PRIORITY": b"batch",
        "SEED": rng.randrange(1000),
        "NUM_INFERENCE_STEPS": 1,
        "GUIDANCE_SCALE": 1.0,
        "NUM_FRAMES": limits.num_frames.low,
        "FPS": 8,
        "HEIGHT": limits.height.low,
        "WIDTH": limits.width.low,
        "PRIORITY_RANK": 1,
        "TIMESTEP": 500.0,
        "ATTENTION_MASK": 1,
    }
    if spec.dtype == "STRING":
        return np.array([fixed[spec.name]], np.object_)
    shape = shapes.of(spec)
    dtype = NUMPY_TYPES[spec.dtype]
    if spec.name in fixed:
        return np.full(shape, fixed[spec.name], dtype)
    drawn = np.random.default_rng(rng.randrange(2**32)).standard_normal(shape)
    return (np.abs(drawn) * 5).astype(dtype) if dtype is not np.float32 else drawn.astype(dtype)
