"""The fused op as an ONNX node with a body, and as that body alone."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from unittest import mock

import numpy as np
import onnx
import onnx_ir
import onnxruntime
import pytest
import torch
from torch import nn

from reelserve.export.engines.onnx import engine
from reelserve.export.engines.onnx.engine import OnnxRuntimeEngine
from reelserve.export.engines.onnx.temporal_attention import (
    DOMAIN,
    INPUTS,
    OP_TYPE,
    PLUGIN_VERSION,
    translation_table,
    with_body,
)
from reelserve.export.parity_limits import MAX_RELATIVE_ERROR
from reelserve.export.stages import DenoiserStage, ExportStage
from reelserve.kernels.temporal_attention import temporal_attention
from reelserve.models.denoiser import DenoiserConfig, SpaceTimeDenoiser
from tests.export import conftest
from tests.export.kept_graphs import kept_build, own_fingerprint
from tests.kernels import problems
from tests.kernels.problems import Problem

pytestmark = pytest.mark.compile

FORMS = ("node", "inlined")
NUM_BLOCKS = 2


@pytest.fixture(scope="module")
def stage() -> ExportStage:
    """A denoiser whose heads are of a width that the op takes."""
    torch.manual_seed(0)
    denoiser = SpaceTimeDenoiser(
        DenoiserConfig(16, 384, width=128, num_heads=2, num_blocks=NUM_BLOCKS, num_refiner_blocks=1)
    ).eval()
    conftest.randomise(denoiser)
    return ExportStage(
        "denoiser", DenoiserStage(denoiser), denoiser_inputs(2, 4), {"LATENTS": {2: "frames"}}
    )


def denoiser_inputs(batch: int, frames: int) -> tuple[torch.Tensor, ...]:
    generator = torch.Generator().manual_seed(batch)
    return (
        torch.randn(batch, 16, frames, 8, 8, generator=generator),
        1000 * torch.rand(batch, 1, generator=generator),
        torch.randn(batch, 64, 384, generator=generator),
        (torch.arange(64) < 20).long().expand(batch, 64).contiguous(),
    )


@pytest.fixture(scope="module")
def traced():
    """The exporter, which traces once: both forms are made from the same graph."""
    own_exported, graphs = engine._exported, []

    def exported(*arguments, **options) -> onnx_ir.Model:
        if not graphs:
            graphs.append(onnx_ir.to_proto(own_exported(*arguments, **options)))
        return onnx_ir.from_proto(graphs[0])

    return exported


@pytest.fixture(scope="module", params=FORMS)
def exported(request, stage, traced, tmp_path_factory) -> tuple[str, Path]:
    path = tmp_path_factory.mktemp(request.param) / "model.onnx"

    def build() -> None:
        with mock.patch.object(engine, "_exported", traced):
            OnnxRuntimeEngine(request.param).build(stage, path)

    kept_build(path.parent, own_fingerprint(__file__, conftest.__file__), request.param, build)
    return request.param, path


@pytest.mark.parametrize(("batch", "frames"), [(1, 4), (3, 7)], ids=["B1-F4", "B3-F7"])
def test_graph_agrees_with_the_op(exported, stage, batch, frames):
    form, path = exported
    inputs = denoiser_inputs(batch, frames)
    with torch.no_grad():
        expected = stage.module(*inputs).numpy()
    names = [tensor.name for tensor in stage.contract.inputs]
    feeds = {name: value.numpy() for name, value in zip(names, inputs, strict=True)}
    found = OnnxRuntimeEngine(form).run(path, feeds)[0]
    np.testing.assert_allclose(
        found, expected, rtol=0, atol=MAX_RELATIVE_ERROR * np.abs(expected).max()
    )


def test_every_temporal_attention_is_one_node_or_none(exported):
    form, path = exported
    model = onnx.load(path)
    onnx.checker.check_model(model)
    nodes = [node for node in model.graph.node if node.domain == DOMAIN]
    assert len(nodes) == (NUM_BLOCKS if form == "node" else 0)
    assert len(model.functions) == (1 if form == "node" else 0)
    for node in nodes:
        attributes = {a.name: onnx.helper.get_attribute_value(a) for a in node.attribute}
        assert node.op_type == OP_TYPE
        assert attributes["plugin_namespace"] == DOMAIN.encode()
        assert attributes["plugin_version"] == PLUGIN_VERSION.encode()
        assert attributes["aot"] == 1
        assert attributes["scale"] == pytest.approx(64**-0.5)


class Attention(nn.Module):
    """The op alone."""

    def forward(self, qkv, norm_q, norm_k, cos, sin):
        return temporal_attention(qkv, norm_q, norm_k, cos, sin)


def export_op(inputs: tuple, path: Path) -> None:
    dynamic = torch.export.Dim.DYNAMIC
    program = torch.onnx.export(
        Attention().eval(),
        inputs,
        dynamo=True,
        opset_version=23,
        input_names=list(INPUTS),
        dynamic_shapes=({0: dynamic, 2: dynamic}, *[None] * 4),
        custom_translation_table=translation_table(),
        optimize=False,
        verbose=False,
    )
    assert program is not None
    onnx_ir.save(with_body(program.model), path)


@pytest.mark.parametrize(
    "problem",
    [Problem(2, 13, 5, 3, 72), Problem(1, 1, 4, 2, 64), Problem(2, 31, 3, 2, 128, torch.float16)],
    ids=str,
)
def test_body_is_the_op(problem, tmp_path):
    traced, path = dataclasses.replace(problem, b=2, s=4), tmp_path / "m"
    kept_build(
        tmp_path,
        own_fingerprint(__file__, problems.__file__),
        str(problem),
        lambda: export_op(traced.inputs(), path),
    )
    inputs = problem.inputs()
    expected = temporal_attention(*inputs).numpy()
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    feeds = {name: value.numpy() for name, value in zip(INPUTS, inputs, strict=True)}
    tolerance = 1e-5 if problem.dtype == torch.float32 else 1e-2
    np.testing.assert_allclose(session.run(None, feeds)[0], expected, rtol=0, atol=tolerance)


def test_export_raises_when_the_norm_is_missing():
    attend = translation_table()[torch.ops.reelserve.temporal_attention.default]
    with pytest.raises(ValueError, match="norm_q is missing"):
        attend(object())
