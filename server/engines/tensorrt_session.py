"""Runs a TensorRT plan that a Triton config describes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from reelserve.runtimes.tensorrt_plan import TensorRTPlan, find_library
from reelserve.server.device_tensor import AnyTensors
from reelserve.server.engines.device_memory import device_errors_named
from reelserve.server.engines.graph_check import GraphRanges, require_match
from reelserve.server.engines.torch_tensors import OUTPUT_DEVICES, TORCH_TYPES, on_host, read_tensor
from reelserve.server.parameters import Parameters


@dataclass(frozen=True)
class TensorRTSettings:
    """How one model instance runs its plan, from the `parameters` of its config.

    Args:
        device: A GPU.
        output_on_device: Whether outputs stay on it, `output_device` is `gpu`.
        cuda_graphs: Whether the usual shapes are recorded as a CUDA graph, `cuda_graphs`.
    """

    device: torch.device
    output_on_device: bool
    cuda_graphs: bool

    @classmethod
    def from_config(cls, config: Mapping[str, Any], kind: str, device_id: int) -> TensorRTSettings:
        """Reads the settings of one instance.

        Args:
            config: Triton's model config, parsed from the JSON that it hands to a stage.
            kind: `CPU` or `GPU`, of this instance.
            device_id: GPU of this instance.

        Raises:
            ValueError: If the instance is not on a GPU, or a setting has an unknown value.
        """
        if kind != "GPU":
            raise ValueError(f"instance kind is {kind}; a plan runs on a GPU: it must be GPU")
        parameters = Parameters(config)
        return cls(
            device=torch.device("cuda", device_id),
            output_on_device=parameters.choice("output_device", OUTPUT_DEVICES, "cpu") == "gpu",
            cuda_graphs=parameters.switch("cuda_graphs", default=False),
        )


class TensorRTSession:
    """One plan, loaded, compared with its config, and run once on its usual shapes.

    Args:
        graph: The `model.plan`.
        config: Triton's model config, parsed from its JSON.
        settings: From the same config.

    Raises:
        FileNotFoundError: If there is no plan.
        ValueError: If TensorRT is missing or does not take the plan, or plan and config disagree.
    """

    def __init__(self, graph: Path, config: Mapping[str, Any], settings: TensorRTSettings) -> None:
        self._name, self._settings = str(config["name"]), settings
        self._plan = TensorRTPlan(
            find_library(), graph, settings.device, cuda_graph=settings.cuda_graphs
        )
        self.spec = self._plan.spec
        require_match(config, GraphRanges.from_spec(self.spec), graph.name)
        self._plan.run(
            {
                spec.name: torch.ones(
                    spec.usual, dtype=TORCH_TYPES[spec.dtype], device=settings.device
                )
                for spec in self.spec.inputs
            }
        )

    def run(self, inputs: AnyTensors) -> dict[str, Any]:
        """Runs the plan once.

        Args:
            inputs: By name, NumPy arrays or tensors on the GPU.

        Returns:
            By name; NumPy arrays or, where the settings say so, tensors on the GPU on which no
            work is pending.

        Raises:
            ValueError: If the plan does not take these shapes or types.
            OutOfDeviceMemoryError: If the GPU's memory does not suffice for the outputs.
        """
        with torch.inference_mode(), device_errors_named(self._settings.device):
            outputs = self._plan.run(
                {
                    spec.name: read_tensor(inputs, spec).to(self._settings.device)
                    for spec in self.spec.inputs
                }
            )
            if self._settings.output_on_device:
                return dict(outputs)
            return dict(zip(outputs, on_host(list(outputs.values())), strict=True))
