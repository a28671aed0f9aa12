"""Operator set 17: every engine stage of every family as TensorRT 8.6 is to get it."""

from __future__ import annotations

import inspect

import onnx
import onnx_ir
import pytest
import torch

from reelserve.export.engines.onnx.engine import OnnxRuntimeEngine
from reelserve.export.engines.onnx.older_opset import OPSET, OpsetError, lower
from reelserve.export.engines.tensorrt.graph import with_fixed_dims, write_graph
from reelserve.export.families import family_of
from reelserve.export.families.layout import Checkpoint
from reelserve.export.fingerprints import graph_fingerprint
from reelserve.export.parity import ENGINE_STAGES, StageRun, compare_stage, require_parity
from reelserve.export.stages import ExportStage
from tests.export.conftest import shallow, write_tiny_checkpoint
from tests.export.kept_graphs import kept_build

CASES = [
    *(("bundled", stage) for stage in ENGINE_STAGES),
    *(("ltx", stage) for stage in ENGINE_STAGES),
    # Its other stages are the classes of LTX-Video's.
    *(("latte", stage) for stage in ("denoiser", "vae_decoder")),
]


@pytest.fixture(scope="session")
def families(tmp_path_factory):
    pytest.importorskip("diffusers", reason="needs pip install '.[families]'")
    from reelserve.tools import tiny_checkpoints as tiny

    folder = tmp_path_factory.mktemp("checkpoints") / "bundled"
    ltx, latte = folder.with_name("ltx"), folder.with_name("latte")
    one = {
        name: {"low": value, "high": value, "default": value}
        for name, value in {"num_frames": 9, "height": 64, "width": 96}.items()
    }
    short = {"num_frames": {"low": 16, "high": 16, "default": 16}}
    return {
        "bundled": family_of(Checkpoint.open(write_tiny_checkpoint(folder)), short),
        "ltx": family_of(Checkpoint.open(tiny.write_tiny_ltx(ltx)), {**tiny.LTX_PROFILE, **one}),
        "latte": family_of(Checkpoint.open(tiny.write_tiny_latte(latte))),
    }


@pytest.mark.compile
@pytest.mark.parametrize(("family", "name"), CASES, ids=[f"{f}-{s}" for f, s in CASES])
def test_graph_has_standard_operators_alone_and_computes_what_torch_does(
    families, family, name, tmp_path
):
    stage = with_fixed_dims(shallow(families[family].build(name)))
    path = tmp_path / "graph.onnx"

    def build() -> None:
        assert write_graph(stage, path, plugin=False, opset=OPSET) == 0

    fingerprint = graph_fingerprint(families[family], OnnxRuntimeEngine(), name, "fp32")
    kept_build(tmp_path, fingerprint, f"set {OPSET} {inspect.getsource(shallow)}", build)

    model = onnx.load(path)
    onnx.checker.check_model(path, full_check=True)
    assert {entry.domain: entry.version for entry in model.opset_import} == {"": OPSET}
    assert model.ir_version == 8 and not model.functions
    # TensorRT 8.6 has UINT8 at the ends alone.
    uint8 = onnx.TensorProto.UINT8
    assert not any(tensor.data_type == uint8 for tensor in model.graph.initializer)
    # TensorRT 8.6 knows none of it, or reads it wrongly.
    strange = ("CastLike", "Attention", "If", "Shape", "Constant")
    assert not any(node.op_type in strange for node in model.graph.node)
    assert all(dim.dim_value > 0 for i in model.graph.input for dim in i.type.tensor_type.shape.dim)
    require_parity(name, parity_of(stage, path), "fp32")


def test_graph_of_sizes_that_vary_is_refused(tmp_path):
    family = family_of(Checkpoint.open(write_tiny_checkpoint(tmp_path / "tiny")))
    stage = with_fixed_dims(family.build("vae_decoder"))

    message = r"vae_decoder has sizes that vary: \w+ \(\d+ to \d+\); .* --num-frames"
    with pytest.raises(OpsetError, match=message):
        write_graph(stage, tmp_path / "graph.onnx", plugin=False, opset=OPSET)


def parity_of(stage: ExportStage, path):
    tensors = stage.inputs_at(1)
    with torch.no_grad():
        expected = stage.module(*tensors).numpy()
    arrays = tuple(tensor.numpy() for tensor in tensors)
    names = [spec.name for spec in stage.contract.inputs]
    engine = OnnxRuntimeEngine()

    def run(*values):
        return engine.run(path, dict(zip(names, values, strict=True)))[0]

    try:
        return compare_stage(StageRun(arrays, expected, expected), run, "torch", path.name)
    finally:
        engine.release()


def model_of(text: str) -> onnx_ir.Model:
    parsed = onnx.parser.parse_model(f'<ir_version: 9, opset_import: ["" : 18]>\n{text}')
    return onnx_ir.from_proto(parsed)


@pytest.mark.parametrize(
    ("operator", "sizes", "left"),
    [("Tile", "1, 1", []), ("Tile", "1, 2", ["Tile"]), ("Expand", "2, 3", []),
     ("Expand", "4, 2, 3", ["Expand"])],
)  # fmt: skip
def test_lower_drops_what_repeats_nothing(operator, sizes, left):
    shape = {"1, 2": "2, 6", "4, 2, 3": "4, 2, 3"}.get(sizes, "2, 3")
    model = model_of(
        f"g (float[2, 3] x) => (float[{shape}] y) "
        f"{{ n = Constant <value_ints: ints = [{sizes}]> () t = {operator} (x, n) y = Relu (t) }}"
    )

    lower(model)

    relu = next(node for node in model.graph if node.op_type == "Relu")
    assert [relu.inputs[0].name] == (["t"] if left else ["x"])


def test_lower_turns_constants_of_plain_integers_into_tensors():
    model = model_of(
        "g (float[2] x) => (float[1, 2] z) "
        "{ y = Constant <value_ints: ints = [1, 2]> () z = Reshape (x, y) }"
    )

    lower(model)

    assert [node.op_type for node in model.graph] == ["Reshape"]
    assert model.graph.initializers["y"].const_value.numpy().tolist() == [1, 2]


def test_lower_moves_axes_into_the_node():
    model = model_of(
        "g (float[2, 3, 4] x) => (float[2, 3, 1] y) "
        "{ a = Constant <value_ints: ints = [-1]> () y = ReduceMean <keepdims: int = 1> (x, a) }"
    )

    lower(model)

    node = next(node for node in model.graph if node.op_type == "ReduceMean")
    assert list(node.attributes["axes"].as_ints()) == [-1]
    assert len(node.inputs) == 1
    assert model.opset_imports[""] == OPSET


def test_lower_names_the_type_of_a_cast():
    model = model_of(
        "g (int64[2] x, float[2] z) => (float[2] y) { a = Abs (z) y = CastLike (x, a) }"
    )

    lower(model)

    node = next(node for node in model.graph if node.op_type == "Cast")
    assert node.attributes["to"].as_int() == onnx.TensorProto.FLOAT
    assert [value.name for value in node.inputs] == ["x"]


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ("y = Mish (x)", "operator Mish .* is not in operator set 17"),
        ("a = Shape (x) y = ReduceMax (x, a)", "ReduceMax .* has axes that are computed"),
        (
            "s = Constant <value_floats: floats = [1.0, 1.0]> () "
            'y = Resize <antialias: int = 1, mode: string = "linear"> (x, , s)',
            "Resize .* has antialias 1",
        ),
        (
            "p = Constant <value_ints: ints = [1, 1]> () a = Constant <value_ints: ints = [1]> () "
            "y = Pad (x, p, , a)",
            r"Pad .* has axes, which set 17 has not",
        ),
    ],
    ids=["operator", "axes", "antialias", "pad"],
)
def test_lower_refuses_what_the_older_set_lacks(body, message):
    with pytest.raises(OpsetError, match=message):
        lower(model_of(f"g (float[2, 3] x) => (float y) {{ {body} }}"))
