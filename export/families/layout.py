"""Reads a checkpoint folder in the diffusers layout."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from reelserve.models.packages import package_path

INDEX_FILE = "model_index.json"
PACKAGE_PREFIX = "package:"
"""Marks a component that an installed package carries, not the checkpoint folder."""


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint folder and its index.

    Args:
        folder: Holds `model_index.json` and one subfolder a component.
        index: The parsed index.
    """

    folder: Path
    index: dict[str, Any]

    @classmethod
    def open(cls, folder: Path) -> Checkpoint:
        """Reads the index.

        Raises:
            FileNotFoundError: If there is no index.
            ValueError: If it is no JSON object.
        """
        path = folder / INDEX_FILE
        if not path.is_file():
            raise FileNotFoundError(
                f"{path}: no such file; --checkpoint must name a folder with it"
            )
        try:
            index = json.loads(path.read_text())
        except json.JSONDecodeError as error:
            raise ValueError(f"{path}: not valid JSON: {error}") from None
        if not isinstance(index, dict):
            raise ValueError(f"{path}: must hold a JSON object")
        return cls(folder, index)

    @property
    def family(self) -> str:
        """`_class_name` of the index.

        Raises:
            ValueError: If it is missing.
        """
        return str(self.setting("_class_name"))

    def setting(self, name: str) -> Any:
        """An entry of the index.

        Raises:
            ValueError: If it is missing.
        """
        if name not in self.index:
            raise ValueError(f"{self.folder / INDEX_FILE}: entry {name!r} is missing")
        return self.index[name]

    def component(self, name: str) -> tuple[str, str]:
        """Library and class of a component; for one in a package, package and path.

        Raises:
            ValueError: If the index lacks it or does not hold a pair of strings.
        """
        entry = self.setting(name)
        if not (
            isinstance(entry, list)
            and len(entry) == 2
            and all(isinstance(part, str) for part in entry)
        ):
            raise ValueError(
                f"{self.folder / INDEX_FILE}: component {name!r} must be a pair of strings, "
                f"is {entry!r}"
            )
        return entry[0], entry[1]

    def packaged(self, name: str) -> tuple[str, str]:
        """Package and path of a component that an installed package carries.

        Raises:
            ValueError: If the component does not come from a package.
        """
        library, path = self.component(name)
        if not library.startswith(PACKAGE_PREFIX):
            raise ValueError(
                f"{self.folder / INDEX_FILE}: component {name!r} must come from "
                f"'{PACKAGE_PREFIX}…', is from {library!r}"
            )
        return library.removeprefix(PACKAGE_PREFIX), path

    def packaged_file(self, name: str, *parts: str, suffix: str = "") -> Path:
        """A file of a packaged component: below its path, or its path with a suffix.

        Raises:
            FileNotFoundError: If the package or the file is missing.
        """
        package, path = self.packaged(name)
        return package_path(package, path + suffix, *parts)

    def component_files(self, name: str) -> tuple[Path, ...]:
        """Files of a component's folder, sorted.

        Raises:
            FileNotFoundError: If the folder is missing or empty.
        """
        folder = self.folder / name
        files = tuple(sorted(path for path in folder.rglob("*") if path.is_file()))
        if not files:
            raise FileNotFoundError(f"{folder}: component {name!r} is missing from the checkpoint")
        return files
