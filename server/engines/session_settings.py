"""Reads a model's Triton config as the official ONNX Runtime backend does.

Source: the README of https://github.com/triton-inference-server/onnxruntime_backend, "Model
Config Options".
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from reelserve.runtimes.onnx_graph import CPU_PROVIDER, CUDA_PROVIDER
from reelserve.server.parameters import Parameters, available_cores

GRAPH_LEVELS = {-1: "ORT_ENABLE_BASIC", 1: "ORT_ENABLE_EXTENDED", 2: "ORT_DISABLE_ALL"}
"""`optimization.graph.level` to the name of a `GraphOptimizationLevel`."""
ALL_OPTIMIZATIONS = "ORT_ENABLE_ALL"
PROVIDERS = {"CPU": CPU_PROVIDER, "GPU": CUDA_PROVIDER}
"""Execution provider by the instance kind that Triton hands a model instance."""


@dataclass(frozen=True)
class SessionSettings:
    """How one model instance runs its graph.

    Args:
        provider: Execution provider.
        device_id: GPU of the instance; unused on a CPU.
        intra_op_threads: Threads inside an operator.
        inter_op_threads: Threads across operators, in parallel mode.
        parallel: Whether independent operators may run at the same time.
        graph_level: Name of a `GraphOptimizationLevel`.
        mem_arena: Whether freed memory is kept for the next run.
        mem_pattern: Whether allocations of a fixed shape are planned ahead.
        arena_shrinkage: Devices whose arena is returned after each run, for example `cpu:0`;
            empty keeps it.
        warm_up: Whether the graph runs once before the model is ready; ours, the official backend
            has `model_warmup`.
    """

    provider: str
    device_id: int
    intra_op_threads: int
    inter_op_threads: int
    parallel: bool
    graph_level: str
    mem_arena: bool
    mem_pattern: bool
    arena_shrinkage: str
    warm_up: bool

    @classmethod
    def from_config(cls, config: Mapping[str, Any], kind: str, device_id: int) -> SessionSettings:
        """Reads the settings of one instance.

        Args:
            config: Triton's model config, parsed from the JSON that it hands to a stage.
            kind: `CPU` or `GPU`, of this instance.
            device_id: GPU of this instance.

        Raises:
            ValueError: If a setting has a value that this backend does not know.
        """
        parameters = Parameters(config)
        if kind not in PROVIDERS:
            raise ValueError(f"instance kind is {kind}; it must be one of {sorted(PROVIDERS)}")
        return cls(
            provider=PROVIDERS[kind],
            device_id=device_id,
            intra_op_threads=parameters.integer("intra_op_thread_count", 0) or available_cores(),
            inter_op_threads=parameters.integer("inter_op_thread_count", 0) or available_cores(),
            parallel=parameters.switch("execution_mode", default=False),
            graph_level=_graph_level(config),
            mem_arena=parameters.switch("enable_mem_arena", default=True),
            mem_pattern=parameters.switch("enable_mem_pattern", default=True),
            arena_shrinkage=parameters.text("memory.enable_memory_arena_shrinkage", ""),
            warm_up=parameters.switch("warm_up", default=False),
        )


def _graph_level(config: Mapping[str, Any]) -> str:
    graph = (config.get("optimization") or {}).get("graph") or {}
    level = int(graph.get("level", 0))
    if level == 0:
        # Protobuf's zero: the level was left out.
        return ALL_OPTIMIZATIONS
    if level not in GRAPH_LEVELS:
        raise ValueError(
            f"optimization.graph.level is {level}; it must be one of {sorted(GRAPH_LEVELS)}"
        )
    return GRAPH_LEVELS[level]
