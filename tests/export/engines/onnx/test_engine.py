"""The exported graphs, each on its own, at sizes other than those that were traced."""

from pathlib import Path

import numpy as np
import onnx
import onnx_ir
import pytest
import torch
from google.protobuf import json_format, text_format
from tritonclient.grpc import model_config_pb2 as protos

from reelserve.export import stages
from reelserve.export.engines.onnx import files as onnx_files
from reelserve.export.engines.onnx.denoiser import onnx_denoiser
from reelserve.export.engines.onnx.upsampler import BlockedPReLU, BlockedUpsamplerStage
from reelserve.export.fingerprints import graph_fingerprint
from reelserve.export.parity import (
    ENGINE_STAGES,
    StageRun,
    compare_stage,
    require_parity,
    torch_runner,
)
from reelserve.export.stages import Target
from reelserve.models.upsampler import load_upsampler
from reelserve.pipeline.contract import ANY, STAGES
from reelserve.runtimes.graph_spec import METADATA_KEY, GraphSpec
from reelserve.server.engines.onnx_session import OnnxSession
from reelserve.server.engines.session_settings import SessionSettings
from tests.export.conftest import ENGINE, LATENTS, TINY_TEXT
from tests.export.kept_graphs import kept_build

pytestmark = pytest.mark.compile

ONNX_TYPES = {"FP32": "FLOAT", "INT64": "INT64", "UINT8": "UINT8"}


def real_inputs(stage: str, batch: int, frames: int) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(1)
    clip = rng.integers(0, 256, (batch, frames, 64, 64, 3), dtype=np.uint8)
    latents = rng.normal(size=(batch, LATENTS["channels"], frames, 8, 8)).astype(np.float32)
    lengths = rng.integers(2, 30, (batch, 2, 1))
    mask = (np.arange(64) < lengths).astype(np.int64)
    return {
        "text_encoder": {
            "INPUT_IDS": rng.integers(1000, 20_000, mask.shape) * mask,
            "ATTENTION_MASK": mask,
        },
        "denoiser": {
            "LATENTS": latents,
            "TIMESTEP": rng.uniform(0, 1000, (batch, 1)).astype(np.float32),
            "PROMPT_EMBEDS": rng.normal(size=(batch, 64, TINY_TEXT.embed_dim)).astype(np.float32),
            "ATTENTION_MASK": mask[:, 0],
        },
        "vae_decoder": {"LATENTS": latents},
        "frame_consistency": {"FRAMES": clip},
        "upsampler": {"FRAMES": clip.repeat(2, axis=2).repeat(2, axis=3)},
    }[stage]


def run(exported, stage: str, inputs: dict[str, np.ndarray]) -> np.ndarray:
    repository, _ = exported
    return ENGINE.run(repository.version_folder(stage) / ENGINE.file_name, inputs)[0]


@pytest.mark.parametrize("stage", ENGINE_STAGES)
def test_graph_has_the_tensors_of_the_contract(exported, stage: str) -> None:
    repository, _ = exported
    graph = onnx.load(repository.version_folder(stage) / ENGINE.file_name).graph
    for found, expected in (
        (graph.input, STAGES[stage].inputs),
        (graph.output, STAGES[stage].outputs),
    ):
        assert [tensor.name for tensor in found] == [tensor.name for tensor in expected]
        for tensor, spec in zip(found, expected, strict=True):
            tensor_type = tensor.type.tensor_type
            assert onnx.TensorProto.DataType.Name(tensor_type.elem_type) == ONNX_TYPES[spec.dtype]
            batch, *dims = tensor_type.shape.dim
            assert batch.dim_param
            assert len(dims) == len(spec.dims)
            for dim, size in zip(dims, spec.dims, strict=True):
                assert size in (ANY, dim.dim_value)


@pytest.mark.parametrize("stage", ENGINE_STAGES)
def test_graph_holds_no_notes_of_the_exporter_but_its_usual_shapes(exported, stage: str) -> None:
    repository, _ = exported
    model = onnx.load(repository.version_folder(stage) / ENGINE.file_name)
    assert not any(part.metadata_props for part in (model.graph, *model.graph.node))
    assert not any(part.doc_string for part in (model, model.graph, *model.graph.node))
    (entry,) = model.metadata_props
    assert entry.key == METADATA_KEY
    spec = GraphSpec.from_json(entry.value)
    assert [given.name for given in spec.inputs] == [tensor.name for tensor in model.graph.input]


@pytest.mark.parametrize("stage", ENGINE_STAGES)
def test_session_runs_the_usual_shapes_before_it_is_ready(exported, stage: str, monkeypatch):
    repository, _ = exported
    path = repository.folder / stage / "config.pbtxt"
    config = json_format.MessageToDict(
        text_format.Parse(path.read_text(), protos.ModelConfig()), preserving_proto_field_name=True
    )
    config.setdefault("parameters", {})["warm_up"] = {"string_value": "1"}
    ran = []
    real = OnnxSession.run
    monkeypatch.setattr(OnnxSession, "run", lambda self, given: ran.append(real(self, given)))
    graph = repository.version_folder(stage) / ENGINE.file_name
    OnnxSession(graph, config, SessionSettings.from_config(config, "CPU", 0))
    (outputs,) = ran
    assert list(outputs) == [spec.name for spec in STAGES[stage].outputs]


@pytest.mark.parametrize(("batch", "frames"), [(1, 4), (3, 5)], ids=["B1-F4", "B3-F5"])
@pytest.mark.parametrize("stage", ENGINE_STAGES)
def test_graph_agrees_with_torch(exported, family, stage: str, batch: int, frames: int) -> None:
    inputs = real_inputs(stage, batch, frames)
    with torch.no_grad():
        module = family.build(stage).module
        expected = module(*(torch.from_numpy(value) for value in inputs.values())).numpy()
    found = run(exported, stage, inputs)
    assert found.dtype == expected.dtype
    frames_out = found.dtype == np.uint8
    np.testing.assert_allclose(
        found.astype(np.float32),
        expected.astype(np.float32),
        rtol=0,
        atol=1 if frames_out else 3e-4,
    )


@pytest.mark.parametrize("stage", ENGINE_STAGES)
def test_rows_are_the_same_bytes_in_any_batch(exported, stage: str) -> None:
    inputs = real_inputs(stage, 4, 4)
    together = run(exported, stage, inputs)
    for count in (1, 2):
        part = run(exported, stage, {name: value[:count] for name, value in inputs.items()})
        np.testing.assert_array_equal(part, together[:count])


@pytest.mark.parametrize("stage", ["denoiser", "vae_decoder", "upsampler"])
def test_graph_in_fp16_agrees_with_torch_in_fp16(family, tmp_path: Path, stage: str) -> None:
    made = family.build(stage, Target("fp16"))
    path = tmp_path / "model.onnx"
    fingerprint = graph_fingerprint(family, ENGINE, stage, "fp16")
    kept_build(tmp_path, fingerprint, "", lambda: ENGINE.build(made, path))

    types = {value.data_type for value in onnx.load(path).graph.initializer}
    assert onnx.TensorProto.FLOAT16 in types
    # Torch has no fast fp16 on a CPU.
    inputs = tuple(real_inputs(stage, 1, 2).values())
    expected = torch_runner(made)(*inputs)
    reference = StageRun(inputs, expected, expected)
    names = [tensor.name for tensor in STAGES[stage].inputs]
    parity = compare_stage(
        reference,
        lambda *values: ENGINE.run(path, dict(zip(names, values, strict=True)))[0],
        "",
        path.name,
    )
    require_parity(stage, parity, "fp16")
    assert parity.max_abs_value > 0


def test_large_weights_are_written_beside_the_graph(exported, tmp_path: Path, monkeypatch) -> None:
    repository, _ = exported
    whole = repository.version_folder("vae_decoder") / ENGINE.file_name
    inputs = real_inputs("vae_decoder", 1, 2)
    model = onnx_ir.load(whole)
    parts = tmp_path / "parts" / "model.onnx"
    parts.parent.mkdir()
    monkeypatch.setattr(onnx_files, "EXTERNAL_DATA_BYTES", 1000)
    onnx_files.save_graph(model, parts)

    assert not whole.with_name("model.onnx.data").exists()
    data = parts.with_name("model.onnx.data")
    assert {path.name for path in parts.parent.iterdir()} == {parts.name, data.name}
    assert data.stat().st_size > 0.7 * whole.stat().st_size > parts.stat().st_size
    # They belong together wherever they are moved, as the exporter does.
    moved = parts.parent.rename(tmp_path / "moved") / "model.onnx"
    np.testing.assert_array_equal(ENGINE.run(moved, inputs)[0], ENGINE.run(whole, inputs)[0])


def test_denoiser_ignores_padding(exported) -> None:
    inputs = real_inputs("denoiser", 1, 4)
    expected = run(exported, "denoiser", inputs)
    padded = np.where(inputs["ATTENTION_MASK"][..., None] == 0, 9.0, inputs["PROMPT_EMBEDS"])
    inputs["PROMPT_EMBEDS"] = padded.astype(np.float32)
    np.testing.assert_allclose(run(exported, "denoiser", inputs), expected, atol=1e-5)


def test_onnx_denoiser_leaves_the_source_as_it_was(family) -> None:
    source = family.build("denoiser").module.denoiser
    names = list(source.state_dict())
    onnx_denoiser(source)
    assert list(source.state_dict()) == names


def test_blocked_prelu_equals_prelu_when_slopes_are_at_most_one() -> None:
    slopes = torch.tensor([-1.4, 0.0, 0.3, 1.0])
    x = torch.randn(2, 4, 5, 5)
    with torch.no_grad():
        torch.testing.assert_close(BlockedPReLU(slopes)(x), torch.prelu(x, slopes))


def test_blocked_upsampler_agrees_where_the_network_halves_what_it_draws() -> None:
    upsampler = load_upsampler(model="models/realesr-animevideov3-x2")
    frames = torch.randint(0, 256, (1, 2, 12, 8, 3), dtype=torch.uint8)
    with torch.no_grad():
        plain = stages.UpsamplerStage(upsampler)(frames)
        blocked = BlockedUpsamplerStage(upsampler)(frames)
    assert blocked.shape == (1, 2, 24, 16, 3)
    assert (blocked.int() - plain.int()).abs().max() <= 1


def test_blocked_upsampler_stays_in_the_range_of_fp16_on_noise() -> None:
    upsampler = load_upsampler().half()
    frames = torch.randint(0, 256, (1, 1, 32, 32, 3), dtype=torch.uint8)
    with torch.no_grad():
        plain = stages.UpsamplerStage(load_upsampler())(frames)
        blocked = BlockedUpsamplerStage(upsampler)(frames)
    assert (blocked.int() - plain.int()).abs().max() <= 2


def test_upsampler_takes_a_long_clip_in_parts(monkeypatch) -> None:
    stage = stages.UpsamplerStage(load_upsampler())
    frames = torch.randint(0, 256, (2, 5, 8, 6, 3), dtype=torch.uint8)
    seen = []
    stage.upsampler.register_forward_pre_hook(lambda _, inputs: seen.append(len(inputs[0])))
    with torch.no_grad():
        whole = stage(frames)
        monkeypatch.setattr(stages, "PART_PIXELS", 2 * 2 * 8 * 6)
        parts = stage(frames)
    assert seen == [10, 4, 4, 2]
    assert (parts.int() - whole.int()).abs().max() <= 1
