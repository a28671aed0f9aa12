"""Compares what a graph takes and gives with the config that serves it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from reelserve.runtimes.graph_spec import GraphInput, GraphOutput, GraphSpec


def differences(config: Mapping[str, Any], spec: GraphSpec) -> list[str]:
    """What a config says of a graph and is not so: names, data types, dimensions, rows of a batch.

    Args:
        config: Triton's model config, parsed from its JSON.
        spec: Of the graph.
    """
    rows = int(config.get("max_batch_size", 0))
    faults = []
    for side, found in (("input", spec.inputs), ("output", spec.outputs)):
        tensors: dict[str, GraphInput | GraphOutput] = {tensor.name: tensor for tensor in found}
        given = {str(entry["name"]): entry for entry in config[side]}
        places = {"config": given.keys(), "graph": tensors.keys()}
        for here, other in (("config", "graph"), ("graph", "config")):
            faults += [
                f"{side} {name} is in the {here} but not in the {other}"
                for name in sorted(places[here] - places[other])
            ]
        for name in sorted(given.keys() & tensors.keys()):
            faults += _tensor_faults(side, given[name], tensors[name], rows)
    return faults


def require_none(faults: Sequence[str], name: str) -> None:
    """Raises `ValueError` with all differences between a config and a graph.

    Args:
        faults: From `differences`.
        name: Of the graph's file.
    """
    if faults:
        raise ValueError(f"the config and {name} disagree: {'; '.join(faults)}")


def _tensor_faults(
    side: str, entry: Mapping[str, Any], tensor: GraphInput | GraphOutput, rows: int
) -> list[str]:
    faults = []
    if entry["data_type"] != f"TYPE_{tensor.dtype}":
        faults.append(
            f"{side} {tensor.name} is {entry['data_type']} in the config and {tensor.dtype} in the "
            "graph"
        )
    dims = [-1] * (rows > 0) + [int(dim) for dim in entry["dims"]]
    rank = len(tensor.usual) if isinstance(tensor, GraphInput) else tensor.rank
    if len(dims) != rank:
        faults.append(
            f"{side} {tensor.name} has dims {dims} in the config and {rank} dimensions in the "
            "graph, the batch dimension first"
        )
    elif isinstance(tensor, GraphInput):
        faults += [
            f"{side} {tensor.name} has dims {dims} in the config; the graph takes "
            f"{low} to {high} in dimension {axis}"
            for axis, (dim, low, high) in enumerate(zip(dims, tensor.low, tensor.high, strict=True))
            if dim != -1 and not low <= dim <= high
        ]
        low, high = tensor.low[0], tensor.high[0]
        if rows > 0 and not low <= 1 <= rows <= high:
            faults.append(
                f"max_batch_size is {rows}; {tensor.name} takes {low} to {high} rows in the graph"
            )
    return faults
