import sys

import onnxruntime
import pytest

from reelserve.export.engines import ENGINES, EngineError, get_engine
from reelserve.export.engines.onnx.engine import OnnxRuntimeEngine


def test_engines_are_loaded_when_they_are_asked_for() -> None:
    assert "onnxruntime" in ENGINES and "no-engine" not in ENGINES
    assert get_engine("onnxruntime") is get_engine("onnxruntime")
    assert isinstance(get_engine("onnxruntime"), OnnxRuntimeEngine)
    for name in ("onnxruntime", "onnxruntime-gpu", "onnxruntime-node"):
        assert get_engine(name).name == name


def test_engine_is_refused_by_name_when_its_library_is_missing(monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, "onnxscript", None)
    monkeypatch.delitem(sys.modules, "reelserve.export.engines.onnx.engine")
    get_engine.cache_clear()
    message = r"engine onnxruntime: onnxscript is not installed; .*'reelserve\[export\]'"
    with pytest.raises(EngineError, match=message):
        get_engine("onnxruntime")


def test_gpu_engine_says_what_to_install_when_this_runtime_has_no_gpu(monkeypatch) -> None:
    engine = get_engine("onnxruntime-gpu")
    assert engine.config_name == "onnxruntime_gpu"
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: ["CPUExecutionProvider"])
    with pytest.raises(EngineError, match="no CUDAExecutionProvider, it has CPUExecutionProvider"):
        engine.check("fp32")
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: [engine.provider])
    engine.check("fp32")
