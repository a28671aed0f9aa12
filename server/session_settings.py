"""Reads a model's Triton config as the official ONNX Runtime backend does.

Source: the README of https://github.com/triton-inference-server/onnxruntime_backend, "Model
Config Options". `rows_per_run` is ours; the official backend ignores it.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

GRAPH_LEVELS = {-1: "ORT_ENABLE_BASIC", 1: "ORT_ENABLE_EXTENDED", 2: "ORT_DISABLE_ALL"}
"""`optimization.graph.level` to the name of a `GraphOptimizationLevel`."""
ALL_OPTIMIZATIONS = "ORT_ENABLE_ALL"
PROVIDERS = {
    "CPU": ("CPUExecutionProvider",),
    "GPU": ("CUDAExecutionProvider", "CPUExecutionProvider"),
}
"""Execution providers by the instance kind that Triton hands a model instance."""


@dataclass(frozen=True)
class SessionSettings:
    """How one model instance runs its graph.

    Args:
        provider: First choice of execution provider.
        device_id: GPU of the instance; unused on a CPU.
        intra_op_threads: Threads inside an operator.
        inter_op_threads: Threads across operators, in parallel mode.
        parallel: Whether independent operators may run at the same time.
        graph_level: Name of a `GraphOptimizationLevel`.
        mem_arena: Whether freed memory is kept for the next run.
        mem_pattern: Whether allocations of a fixed shape are planned ahead.
        arena_shrinkage: Devices whose arena is returned after each run, for example `cpu:0`;
            empty keeps it.
        rows_per_run: Rows of a batch computed at once; 0 computes all of them.
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
    rows_per_run: int

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
            provider=PROVIDERS[kind][0],
            device_id=device_id,
            intra_op_threads=parameters.integer("intra_op_thread_count", 0) or available_cores(),
            inter_op_threads=parameters.integer("inter_op_thread_count", 0) or available_cores(),
            parallel=parameters.switch("execution_mode", default=False),
            graph_level=_graph_level(config),
            mem_arena=parameters.switch("enable_mem_arena", default=True),
            mem_pattern=parameters.switch("enable_mem_pattern", default=True),
            arena_shrinkage=parameters.text("memory.enable_memory_arena_shrinkage", ""),
            rows_per_run=parameters.integer("rows_per_run", 0),
        )


class Parameters:
    """The `parameters` of a Triton model config, with typed access.

    Args:
        config: The model config.
    """

    def __init__(self, config: Mapping[str, Any]) -> None:
        raw: Mapping[str, Mapping[str, str]] = config.get("parameters") or {}
        self._values = {key: value["string_value"] for key, value in raw.items()}

    def text(self, key: str, default: str) -> str:
        """A parameter as it stands."""
        return self._values.get(key, default)

    def integer(self, key: str, default: int) -> int:
        """A whole number of 0 or more.

        Raises:
            ValueError: If it is anything else.
        """
        value = self.text(key, str(default))
        if not value.isdecimal():
            raise ValueError(f"parameter {key} is {value!r}; it must be a whole number, 0 or more")
        return int(value)

    def switch(self, key: str, *, default: bool) -> bool:
        """0 or 1.

        Raises:
            ValueError: If it is anything else.
        """
        value = self.text(key, "1" if default else "0")
        if value not in ("0", "1"):
            raise ValueError(f"parameter {key} is {value!r}; it must be 0 or 1")
        return value == "1"

    def choice(self, key: str, known: Sequence[str], default: str) -> str:
        """One of a few words.

        Raises:
            ValueError: If it is anything else.
        """
        value = self.text(key, default)
        if value not in known:
            raise ValueError(f"parameter {key} is {value!r}; it must be one of {list(known)}")
        return value


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


def available_cores() -> int:
    """Cores that this process may use; a container's share can be less than the machine's."""
    return len(os.sched_getaffinity(0))
