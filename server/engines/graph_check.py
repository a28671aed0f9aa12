"""Compares what a graph takes and gives with the config that serves it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from reelserve.runtimes.graph_spec import GraphSpec

FREE = 2**63 - 1
"""Largest size of a dimension that has no limit."""


@dataclass(frozen=True)
class TensorRange:
    """An input or output of a graph, and the sizes that it can have.

    Args:
        name: As in the graph.
        dtype: Triton data type without the `TYPE_` prefix.
        low: Smallest size of every dimension, the batch dimension first.
        high: Largest size of every dimension.
    """

    name: str
    dtype: str
    low: tuple[int, ...]
    high: tuple[int, ...]


@dataclass(frozen=True)
class GraphRanges:
    """Inputs and outputs of a graph.

    Args:
        inputs: In any order.
        outputs: In any order.
        outputs_optional: Whether the config may leave outputs out, which are not computed then.
    """

    inputs: Sequence[TensorRange]
    outputs: Sequence[TensorRange]
    outputs_optional: bool = False

    @classmethod
    def from_spec(cls, spec: GraphSpec) -> GraphRanges:
        """Reads a compiled graph's specification, which tells the rank of an output alone."""
        return cls(
            [TensorRange(one.name, one.dtype, one.low, one.high) for one in spec.inputs],
            [
                TensorRange(one.name, one.dtype, (0,) * one.rank, (FREE,) * one.rank)
                for one in spec.outputs
            ],
        )


def require_match(config: Mapping[str, Any], graph: GraphRanges, file: str) -> None:
    """Compares names, data types, ranks, dimensions and rows of a batch.

    Args:
        config: Triton's model config, parsed from its JSON.
        graph: What the graph takes and gives.
        file: Name of the graph's file.

    Raises:
        ValueError: If config and graph disagree; it names all of the differences.
    """
    rows = int(config.get("max_batch_size", 0))
    faults = [
        *_faults("input", config["input"], graph.inputs, rows, optional=False),
        *_faults("output", config["output"], graph.outputs, rows, optional=graph.outputs_optional),
    ]
    if faults:
        raise ValueError(f"the config and {file} disagree: {'; '.join(faults)}")


def _faults(
    side: str,
    entries: Sequence[Mapping[str, Any]],
    found: Sequence[TensorRange],
    rows: int,
    *,
    optional: bool,
) -> list[str]:
    given = {str(entry["name"]): entry for entry in entries}
    tensors = {tensor.name: tensor for tensor in found}
    faults = [
        f"{side} {name} is in the config but not in the graph, which has {sorted(tensors)}"
        for name in sorted(given.keys() - tensors.keys())
    ]
    if not optional:
        faults += [
            f"{side} {name} is in the graph but not in the config"
            for name in sorted(tensors.keys() - given.keys())
        ]
    for name in sorted(given.keys() & tensors.keys()):
        faults += _tensor_faults(side, given[name], tensors[name], rows)
    return faults


def _tensor_faults(
    side: str, entry: Mapping[str, Any], tensor: TensorRange, rows: int
) -> list[str]:
    faults = []
    if entry["data_type"] != f"TYPE_{tensor.dtype}":
        faults.append(
            f"{side} {tensor.name} is {entry['data_type']} in the config and {tensor.dtype} in the "
            "graph"
        )
    dims = [-1] * (rows > 0) + [int(dim) for dim in entry["dims"]]
    if len(dims) != len(tensor.low):
        faults.append(
            f"{side} {tensor.name} has dims {dims} in the config and {len(tensor.low)} dimensions "
            "in the graph, the batch dimension first"
        )
        return faults
    faults += [
        f"{side} {tensor.name} has dims {dims} in the config; the graph takes "
        f"{low} to {high} in dimension {axis}"
        for axis, (dim, low, high) in enumerate(zip(dims, tensor.low, tensor.high, strict=True))
        if dim != -1 and not low <= dim <= high
    ]
    if rows > 0 and not tensor.low[0] <= 1 <= rows <= tensor.high[0]:
        faults.append(
            f"max_batch_size is {rows}; {tensor.name} takes {tensor.low[0]} to {tensor.high[0]} "
            "rows in the graph"
        )
    return faults
