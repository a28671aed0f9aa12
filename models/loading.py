"""Reads and writes one component of a checkpoint in the diffusers layout."""

from __future__ import annotations

import json
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any, TypeVar

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import nn

CONFIG_FILE = "config.json"
WEIGHTS_FILE = "diffusion_pytorch_model.safetensors"

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
) -> Component:
    """Builds a module from its folder, in evaluation mode.

    Weights are loaded one by one, so that a module of many gigabytes is in memory once.

    Args:
        folder: Holds `config.json` and the weights.
        module_class: Has the dataclass of its configuration in `config_class`.
        dtype: Type of its parameters; buffers, constants of the field, are fp32.
        device: Device to load to.

    Raises:
        FileNotFoundError: If a file is missing.
        ValueError: If the folder holds another class, or an unknown or missing setting.
    """
    for name in (CONFIG_FILE, WEIGHTS_FILE):
        if not (folder / name).is_file():
            raise FileNotFoundError(f"{folder / name}: missing component file")
    raw: dict[str, Any] = json.loads((folder / CONFIG_FILE).read_text())
    found = raw.pop("_class_name", None)
    if found != module_class.__name__:
        raise ValueError(f"{folder}: holds class {found}, expected {module_class.__name__}")
    config_class = module_class.config_class  # type: ignore[attr-defined]
    known = {field.name for field in fields(config_class)}
    if unknown := sorted(set(raw) - known):
        raise ValueError(f"{folder / CONFIG_FILE}: unknown settings {unknown}")
    settings = {
        name: tuple(value) if isinstance(value, list) else value for name, value in raw.items()
    }
    with torch.device("meta"):
        module = module_class(config_class(**settings))
    parameters = {name for name, _ in module.named_parameters()}
    state = {}
    with safe_open(folder / WEIGHTS_FILE, framework="pt", device=device) as file:
        for name in file.keys():
            value = file.get_tensor(name)
            kept = torch.float32 if value.is_floating_point() else value.dtype
            state[name] = value.to(dtype if name in parameters else kept)
    module.load_state_dict(state, assign=True)
    return module.eval()
