"""Reads and writes one component of a checkpoint in the diffusers layout."""

from __future__ import annotations

import json
from dataclasses import asdict, fields
from pathlib import Path
from typing import TypeVar

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import nn

from reelserve.models.config_limits import check_sizes
from reelserve.models.weight_files import (
    DIFFUSERS_STEM,
    WeightFiles,
    find_weights,
    require_shapes,
    require_values,
    tensor_shapes,
)
from reelserve.pipeline.checkpoint_files import CheckpointFileError, one_line, read_json_object

CONFIG_FILE = "config.json"
WEIGHTS_FILE = f"{DIFFUSERS_STEM}.safetensors"
_CONFIG_FAULTS = (ArithmeticError, AttributeError, LookupError, RuntimeError, TypeError, ValueError)
"""What a wrong setting leads to."""

Component = TypeVar("Component", bound=nn.Module)


def save_component(module: nn.Module, folder: Path, dtype: torch.dtype = torch.float16) -> None:
    """Writes a module's configuration and weights.

    Args:
        module: Has a dataclass in `config`.
        folder: Created where missing.
        dtype: Type of the floating-point weights on disk.
    """
    folder.mkdir(parents=True, exist_ok=True)
    config = {"_class_name": type(module).__name__, **asdict(module.config)}  # type: ignore[call-overload]
    (folder / CONFIG_FILE).write_text(json.dumps(config, indent=2) + "\n")
    state = {
        name: (value.to(dtype) if value.is_floating_point() else value).contiguous().cpu()
        for name, value in module.state_dict().items()
    }
    save_file(state, folder / WEIGHTS_FILE)


def load_component(
    folder: Path,
    module_class: type[Component],
    dtype: torch.dtype = torch.float32,
    device: str = "cpu",
    variant: str = "",
) -> Component:
    """Builds a module from its folder, in evaluation mode.

    Weights are loaded one by one, so that a module of many gigabytes is in memory once.

    Args:
        folder: Holds `config.json` and the weights.
        module_class: Has the dataclass of its configuration in `config_class`.
        dtype: Type of its parameters; buffers, constants of the field, are fp32.
        device: Device to load to.
        variant: See `find_weights`.

    Raises:
        FileNotFoundError: If a file is missing.
        CheckpointFileError: If the folder holds another class, an unknown or missing setting, or
            weights that do not fit or hold NaN or infinity.
    """
    module, weights = component_without_weights(folder, module_class, variant)
    parameters = {name for name, _ in module.named_parameters()}
    state = {}
    for path in weights.files:
        with safe_open(path, framework="pt", device=device) as file:
            for name in file.keys():
                value = file.get_tensor(name)
                kept = torch.float32 if value.is_floating_point() else value.dtype
                state[name] = value.to(dtype if name in parameters else kept)
    require_values(weights.main, state.items())
    module.load_state_dict(state, assign=True)
    return module.eval()


def component_without_weights(
    folder: Path, module_class: type[Component], variant: str = ""
) -> tuple[Component, WeightFiles]:
    """Builds a module on the meta device and finds its weights, which are sure to fit.

    Arguments and errors are those of `load_component`.
    """
    config = component_config(folder, module_class)
    try:
        with torch.device("meta"):
            module = module_class(config)
    except _CONFIG_FAULTS as error:
        raise CheckpointFileError(f"{folder / CONFIG_FILE}: {one_line(error)}") from None
    weights = find_weights(folder, DIFFUSERS_STEM, variant)
    require_shapes(weights.main, module.state_dict(), tensor_shapes(weights))
    return module, weights


def component_config(folder: Path, module_class: type[nn.Module]) -> object:
    """Reads the configuration of a component alone.

    Args:
        folder: Holds `config.json`.
        module_class: Has the dataclass of its configuration in `config_class`.

    Returns:
        The dataclass.

    Raises:
        FileNotFoundError: If there is no configuration.
        CheckpointFileError: If it is of another class, or has an unknown, missing or wrong setting.
    """
    path = folder / CONFIG_FILE
    if not path.is_file():
        raise FileNotFoundError(f"{path}: missing component file")
    raw = read_json_object(path)
    found = raw.pop("_class_name", None)
    if found != module_class.__name__:
        raise CheckpointFileError(f"{path}: holds class {found}, expected {module_class.__name__}")
    check_sizes(path, raw)
    config_class = module_class.config_class  # type: ignore[attr-defined]
    known = {field.name for field in fields(config_class)}
    if unknown := sorted(set(raw) - known):
        raise CheckpointFileError(f"{path}: unknown settings {unknown}")
    settings = {
        name: tuple(value) if isinstance(value, list) else value for name, value in raw.items()
    }
    try:
        config: object = config_class(**settings)
    except _CONFIG_FAULTS as error:
        raise CheckpointFileError(f"{path}: {one_line(error)}") from None
    return config
