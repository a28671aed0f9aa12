"""Refuses an export for want of memory or disk, before anything is loaded."""

from __future__ import annotations

import math
import shutil
import zipfile
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open

from reelserve.export.stages import StageSource, Target

MEMORY_PER_WEIGHTS = 1.25
"""Memory of a stage over the bytes of its weights, what it computes with them included. A low
estimate, since a false refusal is worse than a late one."""
MEMORY_INFO = Path("/proc/meminfo")
_FLOATS = ("F64", "F32", "F16", "BF16", "F8_E4M3", "F8_E5M2")
_OTHER_BYTES = {f"{sign}{bits}": bits // 8 for sign in "IU" for bits in (8, 16, 32, 64)} | {
    "BOOL": 1
}
"""Bytes of a value of the other types, which keep their type when they are loaded."""
_WEIGHT_SUFFIXES = (".bin", ".pt", ".pth", ".ckpt")


class ResourceError(ValueError):
    """There is not enough memory or disk; the message says how much is needed and what to do."""


def check_resources(
    sources: Mapping[str, StageSource], target: Target, jobs: int, folder: Path
) -> None:
    """Refuses an export that this machine cannot do.

    Args:
        sources: Sources of the stages to build, by stage.
        target: What they are loaded for.
        jobs: Stages that are built at once.
        folder: Folder to write the graphs to.

    Raises:
        ResourceError: If memory, the GPU's memory or the disk is too small.
    """
    sizes = {name: weights_bytes(source, target.dtype) for name, source in sources.items()}
    largest = sorted(sizes, key=lambda name: sizes[name], reverse=True)[:jobs]
    needed = int(MEMORY_PER_WEIGHTS * sum(sizes[name] for name in largest))
    stages = " and ".join(sorted(largest))
    fewer = " or fewer --jobs" if len(largest) > 1 else ""
    remedy = f"a lower --precision{fewer} needs less"
    _require(f"{stages} in {target.precision}: memory", needed, available_memory(), remedy)
    if torch.device(target.device).type == "cuda":
        _require(
            f"{stages} in {target.precision}: memory of the GPU",
            needed,
            torch.cuda.mem_get_info(target.device)[0],
            remedy,
        )
    _require(
        f"disk of {folder}", sum(sizes.values()), shutil.disk_usage(folder).free, "make room there"
    )


def weights_bytes(source: StageSource, dtype: torch.dtype) -> int:
    """Bytes of a stage's weights in a data type, from the headers of its files.

    Args:
        source: Files of the stage.
        dtype: Type that its floating-point weights are loaded in.
    """
    total = 0
    for path in source.files:
        if path.suffix == ".safetensors":
            total += _safetensors_bytes(path, dtype)
        elif path.suffix == ".npz":
            with zipfile.ZipFile(path) as arrays:
                total += sum(array.file_size for array in arrays.infolist())
        elif path.suffix in _WEIGHT_SUFFIXES:
            total += path.stat().st_size
    return total


def _safetensors_bytes(path: Path, dtype: torch.dtype) -> int:
    """Size of a file's weights from its header alone."""
    total = 0
    try:
        with safe_open(path, framework="numpy") as file:
            for name in file.keys():
                tensor = file.get_slice(name)
                kind = tensor.get_dtype()
                size = dtype.itemsize if kind in _FLOATS else _OTHER_BYTES.get(kind)
                if size is None:
                    raise ValueError(f"{path}: tensor {name} has the unknown type {kind}")
                total += math.prod(tensor.get_shape()) * size
    except SafetensorError as error:
        raise ValueError(f"{path} is no safetensors file: {error}") from None
    return total


def available_memory() -> int:
    """Bytes that can be taken without swapping, by the system's own estimate."""
    for line in MEMORY_INFO.read_text().splitlines():
        name, _, rest = line.partition(":")
        if name == "MemAvailable":
            return int(rest.split()[0]) * 1024
    raise ResourceError(f"{MEMORY_INFO} has no MemAvailable")


def _require(what: str, needed: int, available: int, remedy: str) -> None:
    if needed > available:
        raise ResourceError(
            f"{what}: about {needed / 1e9:.1f} GB are needed, {available / 1e9:.1f} GB are free; "
            f"{remedy}"
        )
