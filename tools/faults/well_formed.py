"""Small requests for a clip that nothing is wrong with, for others to spoil."""

from __future__ import annotations

import random
import struct
from typing import Any

import numpy as np
from tritonclient.grpc import service_pb2

from reelserve.pipeline.checkpoint import CheckpointSpec
from reelserve.pipeline.contract import PUBLIC_MODEL, REQUEST_INPUTS

NUMPY_TYPES: dict[str, type[np.generic]] = {
    "INT64": np.int64,
    "INT32": np.int32,
    "FP32": np.float32,
}
TIMEOUT_US = 20_000_000
"""What turns out valid by chance must not hold a place for long."""


def well_formed(spec: CheckpointSpec, rng: random.Random) -> Any:
    """A request for a clip of one step.

    Args:
        spec: The served checkpoint.
        rng: Draws what does not matter.

    Returns:
        A `ModelInferRequest` with raw contents.
    """
    request = service_pb2.ModelInferRequest(model_name=PUBLIC_MODEL)
    values = _values(spec, rng)
    for index, tensor in enumerate(REQUEST_INPUTS):
        texts, value = tensor.dtype == "STRING", values[tensor.name]
        request.inputs.add(name=tensor.name, datatype="BYTES" if texts else tensor.dtype, shape=[1])
        request.raw_input_contents.append(b"")
        if texts:
            set_raw(request, index, value)
        else:
            content = np.array([value], NUMPY_TYPES[tensor.dtype]).tobytes()
            request.raw_input_contents[index] = content
    request.parameters["timeout"].int64_param = TIMEOUT_US
    return request


def set_raw(request: Any, index: int, text: bytes) -> None:
    """Puts a text into an input as Triton wants it: its length, then itself."""
    request.raw_input_contents[index] = struct.pack("<I", len(text)) + text


def _values(spec: CheckpointSpec, rng: random.Random) -> dict[str, Any]:
    limits = spec.limits
    return {
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
    }
