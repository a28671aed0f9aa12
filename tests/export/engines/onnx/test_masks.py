"""Masks of one row become masks of a row for every query."""

import numpy as np
import onnx
import onnx_ir

from reelserve.export.engines.onnx.masks import give_masks_their_rows
from reelserve.runtimes.onnx_graph import onnxruntime

QUERIES, KEYS = 3, 5


def graph(mask_rows: int) -> onnx_ir.Model:
    """Attention of two heads with a mask of so many rows."""
    text = f"""
    <ir_version: 10, opset_import: ["" : 23]>
    attend (float[2, {QUERIES}, 8] q, float[2, {KEYS}, 8] k, bool[2, 1, {mask_rows}, {KEYS}] mask)
        => (float[2, {QUERIES}, 8] out)
    {{ out = Attention <q_num_heads = 2, kv_num_heads = 2> (q, k, k, mask) }}
    """
    return onnx_ir.from_proto(onnx.parser.parse_model(text))


def run(model: onnx_ir.Model, mask: np.ndarray) -> np.ndarray:
    rng = np.random.default_rng(0)
    inputs = {
        "q": rng.normal(size=(2, QUERIES, 8)).astype(np.float32),
        "k": rng.normal(size=(2, KEYS, 8)).astype(np.float32),
        "mask": mask,
    }
    session = onnxruntime.InferenceSession(onnx_ir.to_proto(model).SerializeToString())
    return session.run(None, inputs)[0]


def test_mask_of_one_row_counts_for_every_query():
    mask = np.ones((2, 1, 1, KEYS), bool)
    mask[1, ..., 2:] = False
    one, all_rows = graph(1), graph(QUERIES)
    give_masks_their_rows(one)
    expected = run(all_rows, mask.repeat(QUERIES, axis=2))
    np.testing.assert_array_equal(run(one, mask), expected)


def test_mask_with_its_rows_is_left_alone():
    model = graph(QUERIES)
    give_masks_their_rows(model)
    assert [node.op_type for node in model.graph] == ["Attention"]
