"""Errors of a GPU, with functions of torch that answer as a test tells them to."""

from __future__ import annotations

import pytest
import torch

from reelserve.server.engines.device_memory import GIB, device_errors_named
from reelserve.server.errors import OutOfDeviceMemoryError, StageError

GPU = torch.device("cuda", 0)


class Gpu:
    """What torch says of a GPU."""

    def __init__(self, monkeypatch) -> None:
        self.refused, self.lost, self.emptied = 0, False, 0
        monkeypatch.setattr(torch.cuda, "memory_stats", lambda device: {"num_ooms": self.refused})
        monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (20 * GIB, 80 * GIB))
        monkeypatch.setattr(torch.cuda, "synchronize", self._synchronize)
        monkeypatch.setattr(torch.cuda, "empty_cache", self._empty_cache)

    def _synchronize(self, device):
        if self.lost:
            raise RuntimeError("CUDA error: an illegal memory access\nCompile with …")

    def _empty_cache(self):
        self.emptied += 1


@pytest.fixture
def gpu(monkeypatch):
    return Gpu(monkeypatch)


@pytest.mark.parametrize("error", [torch.OutOfMemoryError("2 GiB"), RuntimeError("call failed")])
def test_exhausted_memory_is_named(gpu, error):
    with (
        pytest.raises(
            OutOfDeviceMemoryError, match=r"^out of GPU memory \(60.0 of 80.0 GiB in use"
        ),
        device_errors_named(GPU),
    ):
        # Compiled code says nothing of memory; only the count does.
        gpu.refused += 1
        raise error
    assert gpu.emptied == 1


def test_lost_gpu_is_named(gpu):
    with (
        pytest.raises(
            StageError, match="CUDA error: an illegal memory access: the process of this"
        ),
        device_errors_named(GPU),
    ):
        gpu.lost = True
        raise RuntimeError("run_func_ failed")
    assert gpu.emptied == 0


def test_other_errors_stay_as_they_are(gpu):
    gpu.refused = 3
    with pytest.raises(RuntimeError, match=r"^shape$"), device_errors_named(GPU):
        raise RuntimeError("shape")
    with pytest.raises(ValueError, match="frames"), device_errors_named(GPU):
        raise ValueError("frames")


def test_nothing_is_asked_of_a_cpu():
    with pytest.raises(RuntimeError, match=r"^call$"):
        with device_errors_named(torch.device("cpu")):
            raise RuntimeError("call")
