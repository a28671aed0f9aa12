"""What can be checked of the TensorRT plugin without TensorRT."""

from __future__ import annotations

import ctypes
import importlib
import sys
from types import ModuleType, SimpleNamespace

import pytest
import torch

pytest.importorskip("triton", reason="needs the package triton: comes with torch's CUDA wheels")

from reelserve.export.engines.onnx.temporal_attention import (
    DOMAIN,
    INPUTS,
    OP_TYPE,
)
from reelserve.kernels.ahead_of_time import Variant, compile_variant, plugin_launch
from reelserve.kernels.launch import MULTIPROCESSORS
from tests.kernels.problems import NAMES, Problem, assert_as_close_as_torch

pytestmark = pytest.mark.compile


def cdiv(first: int, second: int) -> int:
    return -(-first // second)


class Size(int):
    """A shape expression that is a constant."""

    def constant_value(self) -> int:
        return int(self)


@pytest.fixture
def plugin(monkeypatch):
    """The module, imported beside a stand-in for TensorRT; and what it registers."""
    registered: dict[str, tuple[str, object]] = {}

    def decorator(kind):
        def register(plugin_id):
            def keep(function):
                registered[kind] = (plugin_id, function)
                return function

            return keep

        return register

    trtp = ModuleType("tensorrt.plugin")
    trtp.register, trtp.aot_impl = decorator("register"), decorator("aot_impl")
    trtp.TensorDesc = trtp.SymExprs = object
    trtp.KernelLaunchParams = SimpleNamespace
    trtp.from_shape_expr = lambda shape, dtype: (shape, dtype)
    trtp.cdiv, trtp.SymInt32, trtp.SymIntExprs = cdiv, int, lambda count: [None] * count
    trt = ModuleType("tensorrt")
    trt.float16, trt.bfloat16, trt.float32, trt.plugin = "half", "bfloat", "float", trtp
    monkeypatch.setitem(sys.modules, "tensorrt", trt)
    monkeypatch.setitem(sys.modules, "tensorrt.plugin", trtp)
    target = SimpleNamespace(get_current_target=lambda: SimpleNamespace(arch=90))
    monkeypatch.setattr("triton.runtime.driver", SimpleNamespace(active=target), raising=False)
    monkeypatch.delitem(sys.modules, "reelserve.kernels.tensorrt_plugin", raising=False)
    yield importlib.import_module("reelserve.kernels.tensorrt_plugin"), registered
    sys.modules.pop("reelserve.kernels.tensorrt_plugin", None)


def desc(*shape: int, dtype: str) -> SimpleNamespace:
    return SimpleNamespace(shape_expr=tuple(map(Size, shape)), dtype=dtype)


def test_plugin_is_registered_as_the_onnx_node_is_named(plugin):
    module, registered = plugin
    assert f"{DOMAIN}::{OP_TYPE}" == module.PLUGIN_ID
    for plugin_id, function in registered.values():
        names = function.__code__.co_varnames[: function.__code__.co_argcount]
        assert plugin_id == module.PLUGIN_ID
        assert names[:7] == (*INPUTS, "scale", "epsilon")


def test_plugin_hands_over_the_launch_of_the_op(plugin):
    module, _ = plugin
    tensors = [desc(2, 31, 5, 3, 4, 128, dtype="bfloat"), *[desc(128, dtype="float")] * 2]
    tensors += [desc(31, 64, dtype="float")] * 2
    assert module.temporal_attention_desc(*tensors, 0.1, 1e-6) == ((2, 31, 5, 512), "bfloat")
    name, ptx, params, sizes = module.temporal_attention_aot(*tensors, 0.1, 1e-6, (), 0)
    compiled = compile_variant(Variant(31, 128, num_heads=4, scale=0.1), 90)
    assert (name, ptx) == (compiled.name, compiled.ptx)
    assert params.grid_x == MULTIPROCESSORS[90] * compiled.config.programs
    assert params.block_x == 32 * compiled.config.num_warps
    assert params.shared_mem == compiled.shared_bytes
    assert sizes == [31, 5, 4, 40]


def test_plugin_cuts_the_grid_where_programs_do_not_stay(plugin):
    module, _ = plugin
    tensors = [desc(2, 31, 5, 3, 3, 64, dtype="bfloat"), *[desc(64, dtype="float")] * 2]
    tensors += [desc(31, 32, dtype="float")] * 2
    _, _, params, _ = module.temporal_attention_aot(*tensors, 0.1, 1e-6, (), 0)
    compiled = compile_variant(Variant(31, 64, num_heads=3, scale=0.1), 90)
    assert params.grid_x == cdiv(2 * 5 * 3, compiled.config.pack)


def test_plugin_raises_when_tables_are_of_different_dtypes(plugin):
    module, _ = plugin
    tensors = [desc(2, 31, 5, 3, 4, 128, dtype="bfloat"), *[desc(128, dtype="float")] * 2]
    tensors += [desc(31, 64, dtype="half")] * 2
    with pytest.raises(ValueError, match="must be of one dtype"):
        module.temporal_attention_aot(*tensors, 0.1, 1e-6, (), 0)


def launch_through_the_driver(compiled, launch, tensors: list[torch.Tensor]) -> None:
    """Launches PTX as TensorRT would: pointers of inputs, sizes, pointer of the output."""
    cuda = ctypes.CDLL("libcuda.so.1")

    def check(status: int) -> None:
        assert status == 0, f"CUDA driver error {status}"

    module, function = ctypes.c_void_p(), ctypes.c_void_p()
    check(cuda.cuModuleLoadData(ctypes.byref(module), compiled.ptx.encode()))
    check(cuda.cuModuleGetFunction(ctypes.byref(function), module, compiled.name.encode()))
    dynamic_shared_bytes = 8
    check(cuda.cuFuncSetAttribute(function, dynamic_shared_bytes, launch.shared_bytes))
    *inputs, output = [ctypes.c_void_p(tensor.data_ptr()) for tensor in tensors]
    arguments = [*inputs, *(ctypes.c_int32(size) for size in launch.sizes), output]
    packed = (ctypes.c_void_p * len(arguments))(
        *(ctypes.cast(ctypes.byref(argument), ctypes.c_void_p) for argument in arguments)
    )
    stream = ctypes.c_void_p(torch.cuda.current_stream().cuda_stream)
    grid, block = (launch.grid_x, 1, 1), (launch.block_x, 1, 1)
    check(cuda.cuLaunchKernel(function, *grid, *block, launch.shared_bytes, stream, packed, None))
    torch.cuda.synchronize()
    check(cuda.cuModuleUnload(module))


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs an NVIDIA GPU")
@pytest.mark.parametrize(
    "problem",
    [
        Problem(2, 31, 7, 5, 128, torch.bfloat16),
        Problem(1, 5, 3, 2, 64, torch.float16),
        Problem(1, 61, 4, 3, 72, torch.float32),
    ],
    ids=str,
)
def test_ptx_launched_through_the_driver_is_the_reference(problem):
    inputs = problem.inputs("cuda")
    major, minor = torch.cuda.get_device_capability()
    variant = Variant(problem.f, problem.d, NAMES[problem.dtype], num_heads=problem.n)
    compiled = compile_variant(variant, 10 * major + minor)
    launch = plugin_launch(compiled, (problem.b, problem.f, problem.s, problem.n), cdiv)
    shape = (problem.b, problem.f, problem.s, problem.n * problem.d)
    out = torch.full(shape, float("nan"), dtype=problem.dtype, device="cuda")
    launch_through_the_driver(compiled, launch, [*inputs, out])
    assert_as_close_as_torch(out, inputs)
