"""Options of the training commands, which are fields of their settings."""

from __future__ import annotations

import argparse
from dataclasses import fields
from pathlib import Path
from typing import Any, TypeVar

RunSettings = TypeVar("RunSettings")

WORLD_CHECKPOINT = Path("checkpoints/world")
"""The checkpoint that the commands make."""


def training_parser(
    description: str | None, settings: type[Any], component: str, names: tuple[str, ...]
) -> argparse.ArgumentParser:
    """A parser with what every training command takes.

    Args:
        description: Text of `--help`.
        settings: Dataclass with a default for every field, of the run's settings.
        component: Folder of the checkpoint that the command writes.
        names: Fields that may be set by an option of their name; int, float or bool.
    """
    parser = argparse.ArgumentParser(description=description)
    add = parser.add_argument
    add("--run-folder", type=Path, default=Path("build/training") / component)
    add("--init", type=Path, help="start from the weights in this folder")
    add("--out", type=Path, default=WORLD_CHECKPOINT / component)
    add("--device", default="cuda")
    defaults = {field.name: field.default for field in fields(settings)}
    for name in names:
        option, default = f"--{name.replace('_', '-')}", defaults[name]
        if isinstance(default, bool):
            add(option, action="store_true")
        else:
            add(option, type=type(default), default=default)
    return parser


def settings_from(arguments: argparse.Namespace, settings: type[RunSettings]) -> RunSettings:
    """The settings that the options of `training_parser` ask for."""
    named = {field.name for field in fields(settings)}  # type: ignore[arg-type]
    return settings(**{name: value for name, value in vars(arguments).items() if name in named})
