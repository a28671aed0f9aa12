"""A public checkpoint of random weights, exported and asked stage by stage over gRPC."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from tritonclient.grpc import InferenceServerClient, InferInput
from tritonclient.utils import np_to_triton_dtype

from reelserve.export import command
from reelserve.export.engines.onnx import files as onnx_files
from reelserve.pipeline.contract import REQUEST_INPUTS, STAGES
from tests.export.families.against_diffusers import Clip
from tests.export.kept_graphs import kept_graphs
from tests.export.scalar_code import scalar_code

TIMEOUT_S = 120


def export(
    checkpoint: Path, profile: Mapping[str, Any], folder: Path, engine: str = "onnxruntime"
) -> float:
    """Exports into a new repository by the command; returns the frames' PSNR against torch."""
    report, limits = folder.with_suffix(".report.json"), folder.with_suffix(".profile.json")
    limits.write_text(json.dumps(profile))
    options = {
        "--checkpoint": checkpoint,
        "--model-repository": folder,
        "--engine": engine,
        "--profile": limits,
        "--parity-report": report,
    }
    argv = [str(part) for option in options.items() for part in option]
    # Tests change from which size on weights stand beside their graph.
    how = f"scalar, weights beside from {onnx_files.EXTERNAL_DATA_BYTES} bytes"
    with scalar_code(), kept_graphs(how):
        assert command.run(argv) == command.EXIT_OK
    return float(json.loads(report.read_text())["frames_psnr_db"])


def clip(url: str, **request: Any) -> Clip:
    """Latents and frames of a request before they become an MP4.

    Args:
        url: `host:port` of a Triton whose stages are open; behind the front end they are not.
        request: Public fields in lower case.
    """
    with InferenceServerClient(url) as client:
        tensors = {
            name.upper(): np.array(
                [value.encode() if isinstance(value, str) else value],
                np.object_ if isinstance(value, str) else None,
            )
            for name, value in request.items()
        }
        for spec in STAGES["prompt_processor"].inputs:
            if spec.name in tensors and spec.dtype != "STRING":
                kinds = {"INT64": np.int64, "INT32": np.int32, "FP32": np.float32}
                tensors[spec.name] = tensors[spec.name].astype(kinds[spec.dtype])
        found = _call(client, "prompt_processor", tensors)
        for stage in ("text_encoder", "video_diffusion", "vae_decoder"):
            found.update(_call(client, stage, found))
        found["FRAMES"] = _call(client, "frame_consistency", found)["CONSISTENT_FRAMES"]
        frames = _call(client, "upsampler", found)["UPSAMPLED_FRAMES"]
        return Clip(found["LATENTS"], frames)


def _call(
    client: InferenceServerClient, stage: str, tensors: Mapping[str, np.ndarray]
) -> dict[str, np.ndarray]:
    """Asks a stage. The first dimension, 1, of all but the public inputs is left out here."""
    contract = STAGES[stage]
    inputs = []
    for spec in contract.inputs:
        if spec.name in tensors:
            array = tensors[spec.name]
            array = array if contract.inputs is REQUEST_INPUTS else array[None]
            inputs.append(InferInput(spec.name, list(array.shape), np_to_triton_dtype(array.dtype)))
            inputs[-1].set_data_from_numpy(array)
    result = client.infer(stage, inputs, client_timeout=TIMEOUT_S)
    return {spec.name: result.as_numpy(spec.name)[0] for spec in contract.outputs}
