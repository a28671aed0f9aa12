import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from onnx import TensorProto, helper, save

from reelserve.runtimes import onnx_graph
from reelserve.runtimes.onnx_graph import (
    CPU_PROVIDER,
    CUDA_PROVIDER,
    ProviderError,
    check_provider,
    open_graph,
)


@pytest.fixture
def graph(tmp_path):
    tensors = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [2]) for name in "xy"]
    node = helper.make_node("Neg", ["x"], ["y"])
    path = tmp_path / "model.onnx"
    graph = helper.make_graph([node], "g", tensors[:1], tensors[1:])
    opset = helper.make_opsetid("", 20)
    save(helper.make_model(graph, opset_imports=[opset], ir_version=10), path)
    return path


def test_graph_runs_on_the_cpu(graph):
    session = open_graph(graph, CPU_PROVIDER)
    assert session.get_providers() == [CPU_PROVIDER]
    (found,) = session.run(None, {"x": np.array([1, -2], np.float32)})
    np.testing.assert_array_equal(found, [-1, 2])


def test_provider_is_refused_when_this_onnxruntime_was_built_without_it(graph):
    message = "has no AbsentProvider, it has .*CPUExecutionProvider; `pip install onnxruntime-gpu`"
    with pytest.raises(ProviderError, match=message):
        check_provider("AbsentProvider")
    with pytest.raises(ProviderError, match=message):
        open_graph(graph, "AbsentProvider")


def test_cpu_does_not_stand_in_for_a_gpu_whose_libraries_do_not_load(graph, monkeypatch):
    """ONNX Runtime warns and goes on with the CPU."""
    asked = []
    real = onnx_graph.onnxruntime.InferenceSession

    def without_cuda(path, options=None, *, providers):
        asked.extend(providers)
        return real(path, options, providers=[CPU_PROVIDER])

    monkeypatch.setattr(onnx_graph.onnxruntime, "InferenceSession", without_cuda)
    monkeypatch.setattr(
        onnx_graph.onnxruntime, "get_available_providers", lambda: [CUDA_PROVIDER, CPU_PROVIDER]
    )
    with pytest.raises(ProviderError, match=f"{CUDA_PROVIDER} did not load: .*CUDA and cuDNN"):
        open_graph(graph, CUDA_PROVIDER, device_id=1)
    assert asked == [(CUDA_PROVIDER, {"device_id": 1, "use_tf32": "0"}), CPU_PROVIDER]


ROOT = Path(__file__).parents[2]
OPENS = """
import reelserve.{module}
from reelserve.runtimes.onnx_graph import onnxruntime
onnxruntime.InferenceSession({graph!r}, providers=["CPUExecutionProvider"])
"""
MODULES = ("server.engines.onnx_session", "export.engines.onnx.engine", "runtimes.onnx_graph")


@pytest.mark.parametrize("module", MODULES)
def test_no_session_is_reported_to_anybody(module, graph, tmp_path):
    """ONNX Runtime writes an identifier to the working folder and a cache below HOME if it is."""
    home = tmp_path / "home"
    home.mkdir()
    environment = {
        key: os.environ[key]
        for key in ("PATH", "LD_LIBRARY_PATH", "PYTHONPATH")
        if key in os.environ
    }
    command = [sys.executable, "-c", OPENS.format(module=module, graph=str(graph))]
    subprocess.run(command, cwd=home, env={**environment, "HOME": str(home)}, check=True)
    assert list(home.iterdir()) == []


def test_only_one_module_of_ours_imports_onnx_runtime():
    rooms = ("client", "export", "loadtest", "pipeline", "runtimes", "server", "tools", "training")
    found = [
        str(file.relative_to(ROOT))
        for room in rooms
        for file in (ROOT / room).rglob("*.py")
        if any(line.startswith("import onnxruntime") for line in file.read_text().splitlines())
    ]
    assert found == ["runtimes/onnx_graph.py"]
