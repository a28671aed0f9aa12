"""AOTInductor packages, with their weights inside or in a file beside them.

The loader unpacks a package before it reads it: one with the 9.5 GB of a large text encoder inside
takes more than a minute. Weights beside it go from the file to the device, once.

Imports torch, which nothing else in this room does.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from reelserve.runtimes.graph_spec import METADATA_KEY, GraphSpec

DEVICE_KEY = "AOTI_DEVICE_KEY"
"""Key of the device type in a package's metadata; the compiler writes it."""
WEIGHTS_SUFFIX = ".safetensors"
_LAYOUT = "layout"
"""Key of the file's metadata: JSON with device type, sizes and strides of every weight, by name."""


class Package:
    """A loaded package.

    Args:
        path: Package, `*.pt2`.
        device: Device to run on.

    Raises:
        FileNotFoundError: If there is none.
        ValueError: If it was not written by the exporter, or is for another kind of device.
    """

    def __init__(self, path: Path, device: torch.device) -> None:
        if not path.is_file():
            raise FileNotFoundError(f"{path} is missing; export the checkpoint first")
        self.device, self._name = device, path.name
        _share_cpp_library()
        # The class behind `torch._inductor.aoti_load_package`, which imports the whole compiler.
        # Without a second thread nothing needs the events by which the loader tells its runs
        # apart, and which cannot be captured in a CUDA graph.
        single_threaded, runners = True, 1
        device_index = (device.index or 0) if device.type == "cuda" else -1
        self._model: Any = torch._C._aoti.AOTIModelPackageLoader(
            str(path), "model", single_threaded, runners, device_index
        )
        metadata = self._model.get_metadata()
        if metadata.get(DEVICE_KEY) != device.type:
            raise ValueError(
                f"{path.name} is compiled for {metadata.get(DEVICE_KEY)} and is to run on "
                f"{device.type}: export the checkpoint again on this machine"
            )
        if METADATA_KEY not in metadata:
            raise ValueError(f"{path.name} does not say what it takes; export the checkpoint again")
        self.spec = GraphSpec.from_json(metadata[METADATA_KEY])
        # The loaded code reads them where they are.
        self._weights = self._load_weights(weights_path(path))

    def run(self, inputs: Sequence[Tensor]) -> list[Tensor]:
        """Runs the graph once, on the current stream.

        Args:
            inputs: Tensors on the device, contiguous, in the order of `spec`. They must fit it:
                nothing is checked here.
        """
        outputs: list[Tensor] = self._model.run(list(inputs))
        return outputs

    def _load_weights(self, path: Path) -> dict[str, Tensor]:
        """Weights from the file beside the package; empty where all are inside."""
        if not self.spec.weights_beside:
            return {}
        if not path.is_file():
            raise ValueError(
                f"{self._name} has no weights inside and no {path.name} beside it; export the "
                "checkpoint again"
            )
        weights = read_weights(path, self.device)
        lacking = set(self._model.get_constant_fqns()) - set(weights)
        if lacking:
            raise ValueError(f"{path.name} lacks {sorted(lacking)}; export the checkpoint again")
        in_use, all_of_them, not_copied = False, True, True
        self._model.load_constants(weights, in_use, all_of_them, not_copied)
        return weights


def _share_cpp_library() -> None:
    """Lets packages use the C++ library of this process, whatever their compiler linked.

    Some compilers put a copy of it into the package. Its tables of locales then clash with those
    of the copy that torch has, and the first stream or regular expression crashes.
    """
    with contextlib.suppress(OSError):
        ctypes.CDLL("libstdc++.so.6", ctypes.RTLD_GLOBAL)


def weights_path(package: Path) -> Path:
    """Weights file of a package that has none inside."""
    return package.with_suffix(WEIGHTS_SUFFIX)


def write_weights(weights: Mapping[str, Tensor], path: Path) -> None:
    """Writes weights with their strides, which compiled code relies on.

    Args:
        weights: Weights by the name that the package gives them.
        path: The file.
    """
    flat, layout, seen = {}, {}, set()
    for name, weight in weights.items():
        weight = weight.detach()
        layout[name] = (weight.device.type, list(weight.shape), list(weight.stride()))
        # As it lies in memory, dense or not: a stride of 0 has fewer values than the shape.
        span = 1 + sum(
            (size - 1) * stride for size, stride in zip(weight.shape, weight.stride(), strict=True)
        )
        values = weight.as_strided((span if weight.numel() else 0,), (1,))
        # The format refuses two tensors in one memory.
        storage = values.untyped_storage().data_ptr()
        flat[name] = values.clone() if storage in seen else values
        seen.add(storage)
    save_file(flat, path, {_LAYOUT: json.dumps(layout)})


def read_weights(path: Path, device: torch.device) -> dict[str, Tensor]:
    """Reads what `write_weights` wrote, straight to the device.

    Args:
        path: The file.
        device: Device for weights that were not on the CPU when written.
    """
    with safe_open(path, "pt", device="cpu") as file:
        layout = json.loads(file.metadata()[_LAYOUT])
    groups: dict[str, list[str]] = {}
    for name, (kind, _, _) in layout.items():
        groups.setdefault("cpu" if kind == "cpu" else str(device), []).append(name)
    weights = {}
    for place, names in groups.items():
        with safe_open(path, "pt", device=place) as file:
            for name in names:
                _, shape, strides = layout[name]
                weights[name] = file.get_tensor(name).as_strided(shape, strides)
    return weights
