"""Reads what a model's Triton config tells its stage, and the cores that there are for it."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any


class Parameters:
    """The `parameters` of a Triton model config, with typed access.

    Args:
        config: The model config.
    """

    def __init__(self, config: Mapping[str, Any]) -> None:
        raw: Mapping[str, Mapping[str, str]] = config.get("parameters") or {}
        self._values = {key: value["string_value"] for key, value in raw.items()}

    def text(self, key: str, default: str) -> str:
        """A parameter as it stands."""
        return self._values.get(key, default)

    def integer(self, key: str, default: int) -> int:
        """A whole number of 0 or more.

        Raises:
            ValueError: If it is anything else.
        """
        value = self.text(key, str(default))
        if not value.isdecimal():
            raise ValueError(f"parameter {key} is {value!r}; it must be a whole number, 0 or more")
        return int(value)

    def switch(self, key: str, *, default: bool) -> bool:
        """0 or 1.

        Raises:
            ValueError: If it is anything else.
        """
        value = self.text(key, "1" if default else "0")
        if value not in ("0", "1"):
            raise ValueError(f"parameter {key} is {value!r}; it must be 0 or 1")
        return value == "1"

    def choice(self, key: str, known: Sequence[str], default: str) -> str:
        """One of a few words.

        Raises:
            ValueError: If it is anything else.
        """
        value = self.text(key, default)
        if value not in known:
            raise ValueError(f"parameter {key} is {value!r}; it must be one of {list(known)}")
        return value


def available_cores() -> int:
    """Cores that this process may use; a container's share can be less than the machine's."""
    return len(os.sched_getaffinity(0))
