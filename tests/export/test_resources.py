from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from reelserve.export import resources
from reelserve.export.resources import ResourceError, check_resources, weights_bytes
from reelserve.export.stages import StageSource, Target

WEIGHTS = {
    "a": torch.zeros(3, 5, dtype=torch.float16),
    "b": torch.zeros(7),
    "ids": torch.zeros(4, dtype=torch.int64),
    "one": torch.zeros(()),
}


@pytest.fixture
def source(tmp_path: Path) -> StageSource:
    save_file(WEIGHTS, tmp_path / "model.fp16.safetensors", metadata={"format": "pt"})
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "upsampler.bin").write_bytes(bytes(10))
    np.savez_compressed(tmp_path / "features.npz", table=np.zeros(5000, np.uint8))
    return StageSource(tuple(sorted(tmp_path.iterdir())))


@pytest.mark.parametrize(("dtype", "size"), [(torch.float32, 4), (torch.bfloat16, 2)])
def test_weights_bytes_counts_in_the_data_type_asked_for(source, dtype, size) -> None:
    counted = weights_bytes(source, dtype)
    # Arrays of NumPy as they are when unpacked, each with a header.
    assert counted - 5000 - ((3 * 5 + 7 + 1) * size + 4 * 8 + 10) in range(64, 257)


def test_weights_bytes_refuses_when_a_file_is_cut_off(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    path.write_bytes(b"\xff\x00\x00")
    with pytest.raises(ValueError, match=r"model\.safetensors is no safetensors file"):
        weights_bytes(StageSource((path,)), torch.float32)


def test_available_memory_is_what_the_system_says(tmp_path: Path, monkeypatch) -> None:
    info = tmp_path / "meminfo"
    info.write_text("MemTotal:  24 kB\nMemAvailable:   3 kB\n")
    monkeypatch.setattr(resources, "MEMORY_INFO", info)
    assert resources.available_memory() == 3072


def sources(tmp_path: Path, **gigabytes: int) -> dict[str, StageSource]:
    """Stages by the size of their weights; the files are sparse."""
    made = {}
    for stage, size in gigabytes.items():
        path = tmp_path / f"{stage}.bin"
        with path.open("wb") as file:
            file.truncate(size * 10**9)
        made[stage] = StageSource((path,))
    return made


@pytest.mark.parametrize(("jobs", "fits"), [(1, True), (2, False)])
def test_check_resources_adds_the_stages_that_are_in_memory_together(
    tmp_path: Path, monkeypatch, jobs: int, fits: bool
) -> None:
    monkeypatch.setattr(resources, "available_memory", lambda: 12 * 10**9)
    usage = type("Usage", (), {"free": 10**12})
    monkeypatch.setattr(resources.shutil, "disk_usage", lambda folder: usage)
    stages = sources(tmp_path, denoiser=8, text_encoder=6, upsampler=1)
    if fits:
        check_resources(stages, Target(), jobs, tmp_path)
        return
    message = (
        r"denoiser and text_encoder in fp32: memory: about 17\.5 GB .* 12\.0 GB .*fewer --jobs"
    )
    with pytest.raises(ResourceError, match=message):
        check_resources(stages, Target(), jobs, tmp_path)


def test_check_resources_refuses_when_the_disk_is_small(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(resources, "available_memory", lambda: 10**12)
    usage = type("Usage", (), {"free": 13 * 10**9})
    monkeypatch.setattr(resources.shutil, "disk_usage", lambda folder: usage)
    with pytest.raises(ResourceError, match=r"disk of .*: about 14\.0 GB are needed, 13\.0 GB are"):
        check_resources(sources(tmp_path, denoiser=8, text_encoder=6), Target(), 1, tmp_path)


def test_check_resources_refuses_when_the_gpu_is_small(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(resources, "available_memory", lambda: 10**12)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (9 * 10**9, 10**11))
    with pytest.raises(ResourceError, match=r"memory of the GPU: about 10\.0 GB .* lower --precis"):
        check_resources(sources(tmp_path, denoiser=8), Target("bf16", "cuda"), 1, tmp_path)
