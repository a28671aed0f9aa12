"""Serves `1/model.plan` of any model whose config says `backend: "tensorrt"`.

A Python-based Triton backend with the name and the files of NVIDIA's C++ one, for servers that lack
it. `TensorRTSettings` describes the parameters.
"""

from __future__ import annotations

from reelserve.server.engines.engine_backend import EngineBackend, Instance
from reelserve.server.engines.tensorrt_session import TensorRTSession, TensorRTSettings

DEFAULT_GRAPH = "model.plan"


class TritonPythonModel(EngineBackend):
    """Inputs and outputs are those of the model's config, which must be those of its plan."""

    takes_device_tensors = True

    def open_session(self, instance: Instance) -> TensorRTSession:
        """Loads the plan, compares it with the config and runs it once."""
        settings = TensorRTSettings.from_config(instance.config, instance.kind, instance.device_id)
        return TensorRTSession(instance.graph(DEFAULT_GRAPH), instance.config, settings)
