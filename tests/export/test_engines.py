import sys

import onnxruntime
import pytest

from reelserve.export import engines
from reelserve.export.engines import ENGINES, EngineError
from reelserve.export.engines.onnx.engine import OnnxRuntimeEngine


def test_engines_are_loaded_when_they_are_asked_for() -> None:
    assert "onnxruntime" in ENGINES and "no-engine" not in ENGINES
    assert ENGINES["onnxruntime"] is ENGINES["onnxruntime"]
    assert isinstance(ENGINES["onnxruntime"], OnnxRuntimeEngine)
    for name in ("onnxruntime", "onnxruntime-gpu", "onnxruntime-node"):
        assert ENGINES[name].name == name


def test_engine_is_refused_by_name_when_its_library_is_missing(monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, "onnxscript", None)
    monkeypatch.delitem(sys.modules, "reelserve.export.engines.onnx.engine")
    source = engines._Source("onnx", "OnnxRuntimeEngine", extra="some-extra")
    found = engines._Engines({"onnxruntime": source})
    message = r"engine onnxruntime: onnxscript is not installed; .*'reelserve\[some-extra\]'"
    with pytest.raises(EngineError, match=message):
        found["onnxruntime"]


def test_gpu_engine_says_what_to_install_when_this_runtime_has_no_gpu(monkeypatch) -> None:
    engine = ENGINES["onnxruntime-gpu"]
    assert engine.config_name == "onnxruntime_gpu"
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: ["CPUExecutionProvider"])
    with pytest.raises(EngineError, match="no CUDAExecutionProvider, it has CPUExecutionProvider"):
        engine.check("fp32")
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: [engine.provider])
    engine.check("fp32")
