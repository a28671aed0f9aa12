"""Typed settings of a component's configuration, refused with file, name, value and limit."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from reelserve.pipeline.checkpoint_files import CheckpointFileError

MISSING = object()
NOTES = ("_class_name", "_diffusers_version", "_name_or_path")
"""Entries of an index or a config that are neither components nor settings."""


@dataclass(frozen=True)
class Settings:
    """The settings of one file.

    Args:
        path: The file, for messages.
        values: What it holds.
        defaults: What its class takes for settings that are left out.
    """

    path: Path
    values: Mapping[str, Any]
    defaults: Mapping[str, Any] = field(default_factory=dict)

    def value(self, name: str) -> Any:
        """A setting as it is, or its default.

        Raises:
            CheckpointFileError: If it is missing and has no default.
        """
        found = self.values.get(name, self.defaults.get(name, MISSING))
        if found is MISSING:
            raise CheckpointFileError(f"{self.path}: setting {name!r} is missing")
        return found

    def integer(self, name: str, high: int, low: int = 1) -> int:
        """A whole number.

        Args:
            name: The setting's name.
            high: Largest allowed value.
            low: Smallest allowed value.

        Raises:
            CheckpointFileError: If it is missing, no whole number or out of range.
        """
        found = self.value(name)
        if isinstance(found, bool) or not isinstance(found, int) or not low <= found <= high:
            raise self.refused(name, f"a whole number from {low} to {high}")
        return found

    def positive(self, name: str) -> float:
        """A finite number above 0.

        Raises:
            CheckpointFileError: If it is missing or anything else.
        """
        found = self.value(name)
        if not is_number(found) or found <= 0:
            raise self.refused(name, "a number above 0")
        return float(found)

    def only(self, name: str, *allowed: object) -> Any:
        """A setting that has few allowed values.

        Raises:
            CheckpointFileError: If it is missing or has another value.
        """
        found = self.value(name)
        if found not in allowed:
            raise self.refused(name, " or ".join(repr(value) for value in allowed))
        return found

    def entries(self, name: str, kind: type) -> tuple[Any, ...]:
        """A list of values of one type, not empty.

        Raises:
            CheckpointFileError: If it is missing or anything else.
        """
        found = self.value(name)
        if not isinstance(found, (list, tuple)) or not found:
            raise self.refused(name, f"a list of {kind.__name__}")
        if not all(type(entry) is kind for entry in found):
            raise self.refused(name, f"a list of {kind.__name__}")
        return tuple(found)

    def refused(self, name: str, wanted: str) -> CheckpointFileError:
        """The error that says what a setting is and must be."""
        return CheckpointFileError(
            f"{self.path}: {name} is {self.value(name)!r}; it must be {wanted}"
        )


def is_number(value: object) -> bool:
    """Whether a parsed value is a finite number."""
    return (
        isinstance(value, (int, float))
        and not isinstance(value, bool)
        and abs(value) < 1e300
        and math.isfinite(value)
    )
