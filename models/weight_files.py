"""Finds the weights of a component, and refuses those that do not fit it before they are read.

Only safetensors are read: a pickle may hold code.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from reelserve.pipeline.checkpoint_files import (
    CheckpointFileError,
    named_file,
    read_json_object,
    require_content,
)

DIFFUSERS_STEM = "diffusion_pytorch_model"
TRANSFORMERS_STEM = "model"
PICKLES = (".bin", ".pt", ".pth", ".ckpt")
SHOWN_KEYS = 3
"""Keys that a message shows; it counts the rest."""


@dataclass(frozen=True)
class WeightFiles:
    """The weights of one component.

    Args:
        files: One file, or all shards; sorted.
        index: Says which shard holds which key; None where there is one file.
        variant: For example `fp16`; empty: the plain files.
    """

    files: tuple[Path, ...]
    index: Path | None = None
    variant: str = ""

    @property
    def all_files(self) -> tuple[Path, ...]:
        """Weights and index."""
        return (*self.files, *([self.index] if self.index else []))

    @property
    def main(self) -> Path:
        """The file to name in a message: the index, or the one file."""
        return self.index or self.files[0]


def find_weights(folder: Path, stem: str, variant: str = "") -> WeightFiles:
    """Finds the weights of a component as diffusers and transformers do.

    Args:
        folder: The component's folder.
        stem: `DIFFUSERS_STEM` or `TRANSFORMERS_STEM`.
        variant: Preferred; a component that has no such files has its plain ones.

    Raises:
        CheckpointFileError: If there are none, one is no whole safetensors file, or an index names
            a file that is missing or elsewhere.
    """
    for wanted in dict.fromkeys((variant, "")):
        single = folder / ".".join(filter(None, (stem, wanted, "safetensors")))
        index = folder / ".".join(filter(None, (stem, "safetensors.index", wanted, "json")))
        if single.is_file():
            found = WeightFiles((single,), variant=wanted)
        elif index.is_file():
            found = WeightFiles(_shards(index), index, wanted)
        else:
            continue
        tensor_shapes(found)
        return found
    raise CheckpointFileError(f"{folder}: has no {stem}.safetensors{_instead(folder)}")


def _instead(folder: Path) -> str:
    """What a folder without plain weights holds, and what to do about it."""
    names = sorted(path.name for path in folder.glob("*") if path.is_file())
    variants = sorted(_variants(names))
    if variants:
        return f"; it holds the variant {' and '.join(variants)}: `--variant {variants[0]}`"
    pickles = [name for name in names if name.endswith(PICKLES)]
    if pickles:
        return (
            f"; {pickles[0]} is a pickle, which may hold code and is not read: load it with the "
            "library that made it and save it by `save_pretrained`"
        )
    return "; fetch it"


def has_variant(folder: Path, variant: str) -> bool:
    """Whether a folder holds weights of a variant."""
    return variant in _variants(path.name for path in folder.glob("*"))


def _variants(names: Iterable[str]) -> set[str]:
    """Variants that file names speak of: `model.fp16-00001-of-00002.safetensors` of `fp16`."""
    found = set()
    for name in names:
        stem, _, rest = name.partition(".")
        if stem in (DIFFUSERS_STEM, TRANSFORMERS_STEM) and rest.endswith(".safetensors"):
            found.add(rest.removesuffix(".safetensors").split("-")[0])
    return found


def _shards(index: Path) -> tuple[Path, ...]:
    weight_map = read_json_object(index).get("weight_map")
    if not isinstance(weight_map, dict) or not weight_map:
        raise CheckpointFileError(f"{index}: must hold an object 'weight_map' of keys and files")
    files = {}
    for key, name in weight_map.items():
        if not isinstance(name, str) or name not in files:
            path = named_file(index.parent, name, f"{index}: weight_map[{key!r}]")
            if path.suffix != ".safetensors":
                raise CheckpointFileError(
                    f"{index}: weight_map[{key!r}] is {name!r}; it must be a safetensors file"
                )
            files[name] = path
    return tuple(files[name] for name in sorted(files))


def tensor_shapes(weights: WeightFiles) -> dict[str, tuple[int, ...]]:
    """Shapes of all tensors by key, from the headers alone.

    Raises:
        CheckpointFileError: If a file is no whole safetensors file, or two hold the same key.
    """
    shapes: dict[str, tuple[int, ...]] = {}
    for path in weights.files:
        require_content(path)
        try:
            with safe_open(path, framework="pt") as file:
                found = {key: tuple(file.get_slice(key).get_shape()) for key in file.keys()}
        except SafetensorError as error:
            raise CheckpointFileError(
                f"{path}: no whole safetensors file: {error}; fetch it again"
            ) from None
        if twice := sorted(shapes.keys() & found.keys()):
            raise CheckpointFileError(f"{path}: {_some(twice)} stand in another shard, too")
        shapes |= found
    return shapes


def require_fit(
    where: Path,
    *,
    missing: Collection[str] = (),
    unexpected: Collection[str] = (),
    misshapen: Collection[str] = (),
) -> None:
    """Refuses weights that are not just those of the configuration.

    Args:
        where: `WeightFiles.main`, for the message.
        missing: Keys that the component has and the weights have not.
        unexpected: Keys that the weights have and the component has not.
        misshapen: Keys of another shape, with what is to be said of them.

    Raises:
        CheckpointFileError: If there is any.
    """
    parts = (("missing", missing), ("unexpected", unexpected), ("of another shape", misshapen))
    found = [f"{len(keys)} {what}: {_some(keys)}" for what, keys in parts if keys]
    if found:
        raise CheckpointFileError(
            f"{where}: the weights do not fit config.json: {'; '.join(found)}"
        )


def require_shapes(
    where: Path,
    wanted: Mapping[str, Tensor],
    found: Mapping[str, tuple[int, ...]],
) -> None:
    """Refuses weights whose keys and shapes are not those of a module.

    Args:
        where: `WeightFiles.main`, for the message.
        wanted: State of the module, which may be on the meta device.
        found: Shapes by key, see `tensor_shapes`.

    Raises:
        CheckpointFileError: If they differ.
    """
    require_fit(
        where,
        missing=wanted.keys() - found.keys(),
        unexpected=found.keys() - wanted.keys(),
        misshapen=[
            f"{key} {list(found[key])} instead of {list(value.shape)}"
            for key, value in wanted.items()
            if key in found and found[key] != tuple(value.shape)
        ],
    )


def require_values(where: Path, tensors: Iterable[tuple[str, Tensor]]) -> None:
    """Refuses tensors that hold no numbers to compute with.

    Args:
        where: `WeightFiles.main`, for the message.
        tensors: Key and value.

    Raises:
        CheckpointFileError: If one was not loaded, or holds NaN or infinity.
    """
    unloaded, broken = [], []
    for key, value in tensors:
        if value.is_meta:
            unloaded.append(key)
        elif value.is_floating_point() and not bool(torch.isfinite(value).all()):
            broken.append(key)
    if unloaded:
        raise CheckpointFileError(f"{where}: {len(unloaded)} weights not loaded: {_some(unloaded)}")
    if broken:
        raise CheckpointFileError(
            f"{where}: {len(broken)} weights hold NaN or infinity: {_some(broken)}"
        )


def require_finite(weights: WeightFiles) -> None:
    """Reads all weights, one at a time, and refuses those that hold NaN or infinity.

    Raises:
        CheckpointFileError: If there is any.
    """

    def values() -> Iterator[tuple[str, Tensor]]:
        for path in weights.files:
            with safe_open(path, framework="pt") as file:
                for key in file.keys():
                    yield key, file.get_tensor(key)

    require_values(weights.main, values())


def _some(keys: Collection[str]) -> str:
    shown = sorted(keys)[:SHOWN_KEYS]
    rest = len(keys) - len(shown)
    return ", ".join(shown) + (f" and {rest} more" if rest else "")
