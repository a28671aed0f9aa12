"""The op on a CPU: reference, properties, errors, registration."""

from __future__ import annotations

import math
from types import SimpleNamespace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.fx.experimental.symbolic_shapes import ShapeEnv

from reelserve.kernels.launch import HEAD_DIMS, MAX_FRAMES, launch_config
from reelserve.kernels.temporal_attention import temporal_attention, temporal_attention_ref
from tests.kernels.problems import Problem, assert_as_close_as_torch

PROBLEMS = [
    Problem(2, 5, 3, 2, 64),
    Problem(1, 13, 7, 3, 72, rope=False),
    Problem(2, 1, 2, 1, 40, qk_norm=False),
    Problem(1, 31, 2, 5, 128, qk_norm=False, rope=False),
    Problem(1, 16, 3, 2, 64, torch.bfloat16),
    Problem(1, 9, 3, 2, 80, torch.float16),
]
SMALL = st.builds(
    Problem,
    b=st.integers(1, 2),
    f=st.integers(1, 9),
    s=st.integers(1, 5),
    n=st.integers(1, 3),
    d=st.sampled_from(HEAD_DIMS),
    qk_norm=st.booleans(),
    rope=st.booleans(),
)


def by_definition(qkv, norm_q, norm_k, cos, sin, scale: float) -> torch.Tensor:
    """One location and head at a time, in fp64, written from the equation."""
    b, f, s, _, n, d = qkv.shape
    out = torch.empty(b, f, s, n, d, dtype=torch.float64)
    for row in range(b):
        for place in range(s):
            for head in range(n):
                q, k, v = qkv[row, :, place, :, head].double().unbind(1)
                if norm_q is not None:
                    q = q / (q.square().mean(1, keepdim=True) + 1e-6).sqrt() * norm_q
                    k = k / (k.square().mean(1, keepdim=True) + 1e-6).sqrt() * norm_k
                if cos is not None:
                    turn = torch.complex(cos.double(), sin.double())
                    q, k = (
                        torch.cat([turned.real, turned.imag], 1)
                        for turned in (
                            torch.complex(x[:, : d // 2], x[:, d // 2 :]) * turn for x in (q, k)
                        )
                    )
                out[row, :, place, head] = torch.softmax(q @ k.T * scale, 1) @ v
    return out.reshape(b, f, s, n * d)


@pytest.mark.parametrize("problem", PROBLEMS, ids=str)
def test_reference_is_its_definition(problem):
    inputs = problem.inputs()
    exact = temporal_attention_ref(*inputs, upcast=True)
    expected = by_definition(*inputs, scale=problem.d**-0.5)
    torch.testing.assert_close(exact, expected, rtol=0, atol=1e-9)


@pytest.mark.parametrize("problem", PROBLEMS, ids=str)
def test_op_on_a_cpu_is_the_reference(problem):
    inputs = problem.inputs()
    found = temporal_attention(*inputs)
    assert found.dtype == problem.dtype and found.is_contiguous()
    torch.testing.assert_close(found, temporal_attention_ref(*inputs), rtol=0, atol=0)
    assert_as_close_as_torch(found, inputs)


def test_op_takes_a_scale():
    qkv = torch.randn(1, 4, 2, 3, 1, 64)
    expected = by_definition(qkv, None, None, None, None, scale=0.7)
    found = temporal_attention(qkv, scale=0.7)
    torch.testing.assert_close(found.double(), expected, rtol=0, atol=1e-5)


@settings(max_examples=20, deadline=None)
@given(SMALL)
def test_permuting_locations_permutes_the_output(problem):
    qkv, *rest = problem.inputs()
    order = torch.randperm(problem.s)
    expected = temporal_attention(qkv, *rest)[:, :, order]
    found = temporal_attention(qkv[:, :, order].contiguous(), *rest)
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6)


@settings(max_examples=20, deadline=None)
@given(SMALL)
def test_one_frame_returns_its_values(problem):
    qkv, *rest = Problem(**{**vars(problem), "f": 1}).inputs()
    values = qkv[:, :, :, 2].flatten(-2)
    torch.testing.assert_close(temporal_attention(qkv, *rest), values, rtol=1e-6, atol=1e-6)


@settings(max_examples=20, deadline=None)
@given(SMALL)
def test_adding_a_constant_to_all_logits_changes_nothing(problem):
    # Where one channel of every key is c, adding to that channel of a query adds c·x to all of
    # its logits.
    qkv = Problem(**{**vars(problem), "qk_norm": False, "rope": False}).inputs()[0]
    qkv[:, :, :, 1, :, 0] = 1
    moved = qkv.clone()
    moved[:, :, :, 0, :, 0] += 20
    torch.testing.assert_close(
        temporal_attention(moved), temporal_attention(qkv), rtol=1e-4, atol=1e-5
    )


def test_op_is_registered_as_torch_asks():
    inputs = Problem(1, 3, 2, 2, 64).inputs()
    torch.library.opcheck(torch.ops.reelserve.temporal_attention.default, inputs)
    torch.library.opcheck(torch.ops.reelserve.temporal_attention.default, inputs[:1])


def test_op_stays_one_node_through_export():
    class Module(torch.nn.Module):
        def forward(self, qkv):
            return temporal_attention(qkv)

    program = torch.export.export(
        Module(),
        (torch.randn(2, 4, 3, 3, 2, 64),),
        dynamic_shapes=({0: torch.export.Dim.DYNAMIC, 2: torch.export.Dim.DYNAMIC},),
    )
    program = program.run_decompositions()
    targets = [str(node.target) for node in program.graph.nodes if node.op == "call_function"]
    assert targets == ["reelserve.temporal_attention.default"]


@pytest.mark.parametrize(("low", "usual", "high"), [(4, 20, 20), (2, 9, 16), (4, 31, 128)])
def test_op_leaves_the_number_of_frames_free_on_a_gpu(monkeypatch, low, usual, high):
    """By a tensor that only says that it is on a GPU."""
    properties = SimpleNamespace(multi_processor_count=132)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: properties)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (9, 0))
    with FakeTensorMode(shape_env=ShapeEnv()):
        qkv = torch.empty(1, usual, 6, 3, 2, 64, dtype=torch.bfloat16, device="cuda")
    frames = {1: torch.export.Dim.DYNAMIC(min=low, max=high)}
    program = torch.export.export(Plain(), (qkv,), dynamic_shapes=(frames,), strict=False)
    assert [(r.lower, r.upper) for r in program.range_constraints.values()] == [(low, high)]


class Plain(torch.nn.Module):
    def forward(self, qkv):
        return temporal_attention(qkv)


def test_op_compiles_without_a_graph_break():
    inputs = Problem(1, 3, 2, 2, 64).inputs()
    compiled = torch.compile(temporal_attention, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(compiled(*inputs), temporal_attention(*inputs))


def test_gradients_are_those_of_the_reference():
    inputs = [x.double().requires_grad_() for x in Problem(1, 3, 2, 1, 40).inputs()]
    weights = torch.randn(1, 3, 2, 40)
    single = [x.detach().float().requires_grad_() for x in inputs]
    (temporal_attention(*single) * weights).sum().backward()
    expected = by_definition(*inputs, scale=40**-0.5)
    (expected * weights).sum().backward()
    for found, exact in zip(single, inputs, strict=True):
        torch.testing.assert_close(found.grad.double(), exact.grad, rtol=1e-4, atol=1e-4)


def with_qkv(qkv: torch.Tensor) -> list:
    return [qkv, None, None, None, None]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (with_qkv(torch.zeros(2, 4, 3, 2, 64)), r"qkv has shape \(2, 4, 3, 2, 64\)"),
        (with_qkv(torch.zeros(1, 4, 2, 2, 1, 64)), r"must be \[B, F, S, 3, N, D\]"),
        (with_qkv(torch.zeros(1, 129, 1, 3, 1, 64)), "129 frames: F must be 1 to 128"),
        (with_qkv(torch.zeros(1, 0, 1, 3, 1, 64)), "0 frames: F must be 1 to 128"),
        (with_qkv(torch.zeros(1, 4, 1, 3, 1, 48)), "head width 48: D must be one of"),
        (with_qkv(torch.zeros(1, 4, 1, 3, 1, 64).double()), "qkv is torch.float64"),
        (with_qkv(torch.zeros(2, 4, 1, 3, 1, 64).transpose(0, 1)), "must be contiguous"),
        (
            with_qkv(torch.zeros(2**15, 1, 2**15, 3, 1, 64, device="meta")),
            "1073741824 sequences: B \\* S \\* N must be below 536870912",
        ),
        ([torch.zeros(1, 4, 1, 3, 1, 64), torch.ones(64), None, None, None], "norm_q and norm_k"),
        ([torch.zeros(1, 4, 1, 3, 1, 64), None, None, None, torch.ones(4, 32)], "cos and sin"),
        (
            [torch.zeros(1, 4, 1, 3, 1, 64), *[torch.ones(32)] * 2, None, None],
            r"norm_q has shape \(32,\): must be \(64,\)",
        ),
        (
            [torch.zeros(1, 4, 1, 3, 1, 64), None, None, *[torch.ones(4, 64)] * 2],
            r"cos has shape \(4, 64\): must be \(4, 32\)",
        ),
        (
            [torch.zeros(1, 4, 1, 3, 1, 64), None, None, *[torch.ones(4, 32, device="meta")] * 2],
            "cos is on meta: must be on cpu",
        ),
        (
            [torch.zeros(1, 4, 1, 3, 1, 64), *[torch.ones(64, dtype=torch.int64)] * 2, None, None],
            "norm_q is torch.int64",
        ),
    ],
)
def test_op_raises_when_an_argument_is_out_of_range(arguments, message):
    with pytest.raises(ValueError, match=message):
        temporal_attention(*arguments)


@pytest.mark.parametrize("element_bytes", [2, 4])
@pytest.mark.parametrize("head_dim", HEAD_DIMS)
def test_launch_table_fills_the_tiles_of_the_tensor_cores(head_dim, element_bytes):
    for frames in range(1, MAX_FRAMES + 1):
        config = launch_config(90, frames, 16, head_dim, element_bytes)
        rows = config.block_q * config.pack
        assert rows >= 16 and rows % 16 == 0 and math.log2(rows).is_integer()
        assert config.pack == 1 or config.block_q >= frames


def test_launch_of_heads_that_do_not_fill_a_tile_stays_out_of_the_pipeline():
    assert launch_config(90, 32, 16, 64).num_stages
    assert not launch_config(90, 32, 3, 64).num_stages
    assert launch_config(90, 32, 3, 128).pack == 1
