"""Says before anything is loaded that memory or disk will not do."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path

import torch

from reelserve.export.stages import StageSource, Target

MEMORY_PER_WEIGHTS = 1.25
"""Memory that a stage takes over the bytes of its weights: these, and what is computed with them.
An estimate from below, since a false refusal is worse than a late one."""
MEMORY_INFO = Path("/proc/meminfo")
_FLOATS = ("F64", "F32", "F16", "BF16", "F8_E4M3", "F8_E5M2")
_HEADER_LENGTH_BYTES = 8
_WEIGHT_SUFFIXES = (".bin", ".pt", ".pth", ".ckpt")


class ResourceError(ValueError):
    """There is not enough memory or disk; the message says how much is needed and what to do."""


def check_resources(
    sources: Mapping[str, StageSource], target: Target, jobs: int, folder: Path
) -> None:
    """Refuses an export that this machine cannot do.

    Args:
        sources: Of the stages to build.
        target: What they are loaded for.
        jobs: Stages that are built at once.
        folder: That the graphs are written to.

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
        source: Of the stage.
        dtype: Of its floating-point weights.
    """
    total = 0
    for path in source.files:
        # `model.fp16.safetensors` is another copy of `model.safetensors`.
        if path.suffix == ".safetensors" and "." not in path.stem:
            total += _safetensors_bytes(path, dtype)
        elif path.suffix in _WEIGHT_SUFFIXES:
            total += path.stat().st_size
    return total


def _safetensors_bytes(path: Path, dtype: torch.dtype) -> int:
    """Reads the header alone: a length in 8 bytes, then JSON."""
    try:
        with path.open("rb") as file:
            length = int.from_bytes(file.read(_HEADER_LENGTH_BYTES), "little")
            header = json.loads(file.read(length))
    except (ValueError, OverflowError) as error:
        raise ValueError(f"{path} is no safetensors file: {error}") from None
    total = 0
    for name, tensor in header.items():
        if name == "__metadata__":
            continue
        first, last = tensor["data_offsets"]
        if tensor["dtype"] in _FLOATS:
            count = 1
            for size in tensor["shape"]:
                count *= size
            total += count * dtype.itemsize
        else:
            total += last - first
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
