import gc
import sys
import weakref
from types import ModuleType

made: "list[weakref.ref[object]]" = []


class Family:
    """One of Triton's metric families, of which a test sees whether somebody has it."""

    COUNTER, GAUGE, HISTOGRAM = "counter", "gauge", "histogram"

    def __init__(self, *arguments):
        made.append(weakref.ref(self))

    def Metric(self, labels, buckets=None):  # noqa: N802
        return Metric(self)


class Metric:
    def __init__(self, family):
        made.append(weakref.ref(self))

    def set(self, value):
        pass


def test_recorder_takes_its_metrics_back_while_triton_can_be_told(monkeypatch):
    """At the interpreter's end the stage's shared memory has gone, and it would crash."""
    triton = ModuleType("triton_python_backend_utils")
    triton.MetricFamily = Family
    monkeypatch.setitem(sys.modules, triton.__name__, triton)
    monkeypatch.delitem(sys.modules, "reelserve.server.stages.step_metrics", raising=False)
    from reelserve.server.stages.step_metrics import StepRecorder

    recorder = StepRecorder()
    assert made and all(one() is not None for one in made)
    recorder.close()
    gc.collect()
    assert all(one() is None for one in made)
