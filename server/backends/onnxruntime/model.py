"""Serves `1/model.onnx` of any model whose config says `backend: "onnxruntime"`.

A Python-based Triton backend with the name, the files and the options of NVIDIA's C++ one,
for servers that lack it.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from reelserve.server.batching import run_batched, run_each
from reelserve.server.onnx_session import OnnxSession
from reelserve.server.session_settings import SessionSettings
from reelserve.server.triton_io import (
    check_not_cancelled,
    error_response,
    input_arrays,
    response,
)

DEFAULT_GRAPH = "model.onnx"


class TritonPythonModel:
    """Inputs and outputs are those of the model's config, which must be those of its graph."""

    def initialize(self, args: dict[str, str]) -> None:
        """Loads the graph and compares it with the config."""
        config = json.loads(args["model_config"])
        settings = SessionSettings.from_config(
            config, args["model_instance_kind"], int(args["model_instance_device_id"])
        )
        folder = Path(args["model_repository"]) / args["model_version"]
        graph = folder / (config.get("default_model_filename") or DEFAULT_GRAPH)
        self._session = OnnxSession(graph, config, settings)
        self._batched = int(config["max_batch_size"]) > 0
        self._rows_per_run = settings.rows_per_run

    def execute(self, requests: list[Any]) -> list[Any]:
        """Computes a batch; every request gets its own response or error."""
        responses: list[Any] = [None] * len(requests)
        live = []
        for index, request in enumerate(requests):
            try:
                check_not_cancelled(request)
                live.append((index, input_arrays(request)))
            except Exception as error:
                responses[index] = error_response(error)
        arrays = [inputs for _, inputs in live]
        if self._batched:
            results = run_batched(arrays, self._session.run, self._rows_per_run)
        else:
            results = run_each(arrays, self._session.run)
        for (index, _), result in zip(live, results, strict=True):
            if isinstance(result, Exception):
                responses[index] = error_response(result)
            else:
                responses[index] = response(result)
        return responses
