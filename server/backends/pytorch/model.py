"""Serves `1/model.pt2` of any model whose config says `backend: "pytorch"`.

A Python-based Triton backend with the name and the files of NVIDIA's C++ one (its platform
`torch_aoti`), for servers that lack it. `AotiSettings` describes the parameters.
"""

from __future__ import annotations

from reelserve.server.engines.aoti_session import AotiSession, AotiSettings
from reelserve.server.engines.engine_backend import EngineBackend, Instance

DEFAULT_GRAPH = "model.pt2"


class TritonPythonModel(EngineBackend):
    """Inputs and outputs are those of the model's config, which must be those of its package."""

    takes_device_tensors = True

    def open_session(self, instance: Instance) -> AotiSession:
        """Loads the package, compares it with the config and warms it up."""
        settings = AotiSettings.from_config(instance.config, instance.kind, instance.device_id)
        return AotiSession(instance.graph(DEFAULT_GRAPH), instance.config, settings)
