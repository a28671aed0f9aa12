"""Serves `1/model.onnx` of any model whose config says `backend: "onnxruntime"`.

A Python-based Triton backend with the name, the files and the options of NVIDIA's C++ one,
for servers that lack it.
"""

from __future__ import annotations

from reelserve.server.engines.engine_backend import EngineBackend, Instance
from reelserve.server.engines.onnx_session import OnnxSession
from reelserve.server.engines.session_settings import SessionSettings

DEFAULT_GRAPH = "model.onnx"


class TritonPythonModel(EngineBackend):
    """Inputs and outputs are those of the model's config, which must be those of its graph."""

    def open_session(self, instance: Instance) -> OnnxSession:
        """Loads the graph and compares it with the config."""
        settings = SessionSettings.from_config(instance.config, instance.kind, instance.device_id)
        return OnnxSession(instance.graph(DEFAULT_GRAPH), instance.config, settings)
