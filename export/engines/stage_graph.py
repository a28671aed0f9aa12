"""Inputs and outputs of a stage's graph, for engines whose graphs have bounds."""

from __future__ import annotations

from reelserve.export.stages import ExportStage
from reelserve.pipeline.contract import TensorSpec
from reelserve.runtimes.graph_spec import GraphInput, GraphOutput, GraphSpec


def graph_spec(stage: ExportStage, *, weights_beside: bool = False) -> GraphSpec:
    """Specification for a batch of 1 and sizes within the limits of a request.

    Args:
        stage: Its ranges are the bounds of its free dimensions.
        weights_beside: Whether its weights will be in a file beside the graph.
    """
    inputs = []
    for spec, usual in zip(stage.contract.inputs, stage.inputs_at(1), strict=True):
        low, high = list(usual.shape), list(usual.shape)
        for axis, name in stage.free_dims.get(spec.name, {}).items():
            if name in stage.ranges:
                low[axis], high[axis] = stage.ranges[name].low, stage.ranges[name].high
        inputs.append(
            GraphInput(spec.name, spec.dtype, tuple(low), tuple(high), tuple(usual.shape))
        )
    outputs = tuple(_output(spec) for spec in stage.contract.outputs)
    return GraphSpec(tuple(inputs), outputs, weights_beside=weights_beside)


def _output(spec: TensorSpec) -> GraphOutput:
    return GraphOutput(spec.name, spec.dtype, 1 + len(spec.dims))
