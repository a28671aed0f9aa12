"""Requests as a client of any language would send them, right or wrong."""

import hashlib
import json
from typing import Any

import numpy as np
from tritonclient.grpc import InferenceServerClient, InferInput

from reelserve.pipeline.contract import REQUEST_INPUTS
from reelserve.server.launch.running_server import Server

NUMPY_TYPES = {"INT64": np.int64, "INT32": np.int32, "FP32": np.float32, "FP64": np.float64}
DTYPES = {spec.name: spec.dtype for spec in REQUEST_INPUTS}
DEADLINE_S = 120


def infer_input(name: str, value: Any, dtype: str | None = None) -> InferInput:
    """One tensor from a value or a list of values; nested lists make more dimensions."""
    dtype = dtype or DTYPES[name]
    if dtype == "STRING":
        texts = value if isinstance(value, list) else [value]
        array = np.array([t.encode() if isinstance(t, str) else t for t in texts], np.object_)
        dtype = "BYTES"
    else:
        array = np.atleast_1d(np.array(value, NUMPY_TYPES[dtype]))
    tensor = InferInput(name, list(array.shape), dtype)
    tensor.set_data_from_numpy(array)
    return tensor


def generate(server: Server, **fields: Any) -> tuple[bytes, dict[str, Any]]:
    """Generates a clip from fields in lower case; returns the MP4 and INFO."""
    inputs = [infer_input(name.upper(), value) for name, value in fields.items()]
    with InferenceServerClient(server.grpc_url) as client:
        result = client.infer("text_to_video", inputs, client_timeout=DEADLINE_S)
    return result.as_numpy("VIDEO")[0], json.loads(result.as_numpy("INFO")[0])


def digest(server: Server, **fields: Any) -> str:
    """The MP4's hash."""
    return hashlib.sha256(generate(server, **fields)[0]).hexdigest()


def executions(server: Server, model: str) -> tuple[int, int]:
    """Rows and batches that a model has computed, failed ones included."""
    with InferenceServerClient(server.grpc_url) as client:
        statistics = client.get_inference_statistics(model).model_stats[0]
    return (
        statistics.inference_count + statistics.inference_stats.fail.count,
        statistics.execution_count,
    )
