"""Reads a checkpoint folder in the diffusers layout."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from reelserve.export.families.settings import NOTES
from reelserve.models.packages import package_path
from reelserve.models.weight_files import find_weights, has_variant
from reelserve.pipeline.checkpoint_files import CheckpointFileError, inside, read_json_object

INDEX_FILE = "model_index.json"
PACKAGE_PREFIX = "package:"
"""Marks a component that an installed package carries, not the checkpoint folder."""
CONFIG_FILE = "config.json"
ABSENT = (None, [None, None])
"""How diffusers writes that an optional component is not there."""


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint folder and its index.

    Args:
        folder: Holds `model_index.json` and one subfolder a component.
        index: The parsed index.
        variant: Name inside the files of its weights, as in diffusers, for example `fp16`; a
            component without such files has its plain ones.
    """

    folder: Path
    index: dict[str, Any]
    variant: str = ""

    @classmethod
    def open(cls, folder: Path, variant: str = "") -> Checkpoint:
        """Reads the index.

        Args:
            folder: The checkpoint's folder.
            variant: For example `fp16`, for files named `*.fp16.safetensors`; empty: plain files.

        Raises:
            CheckpointFileError: If it is no JSON object, or no component has the variant.
            FileNotFoundError: If there is no index.
        """
        path = folder / INDEX_FILE
        if not path.is_file():
            raise FileNotFoundError(
                f"{path}: no such file; --checkpoint must name a folder with it"
            )
        index = read_json_object(path)
        if variant and not any(
            has_variant(part, variant) for part in folder.iterdir() if part.is_dir()
        ):
            raise CheckpointFileError(
                f"{folder}: variant is {variant!r}; no component has weights named "
                f"*.{variant}.safetensors"
            )
        return cls(folder, index, variant)

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
        package = library.removeprefix(PACKAGE_PREFIX)
        # A dotted name would be imported to be found.
        if not package.isidentifier() or not inside(path):
            raise CheckpointFileError(
                f"{self.folder / INDEX_FILE}: component {name!r} is {[library, path]}; it must "
                "name a package and a path inside it"
            )
        return package, path

    def packaged_file(self, name: str, *parts: str, suffix: str = "") -> Path:
        """A file of a packaged component: below its path, or its path with a suffix.

        Raises:
            FileNotFoundError: If the package or the file is missing.
        """
        package, path = self.packaged(name)
        return package_path(package, path + suffix, *parts)

    def require_component(self, name: str, library: str, class_name: str) -> None:
        """Refuses a component of another class.

        Args:
            name: The component's name.
            library: Library that the index must name.
            class_name: Class that the index must name.

        Raises:
            CheckpointFileError: If the index names something else.
        """
        found = self.component(name)
        if found != (library, class_name):
            raise CheckpointFileError(
                f"{self.folder / INDEX_FILE}: component {name!r} is {'.'.join(found)}; this "
                f"family needs {library}.{class_name}"
            )

    def require_entries(self, known: Collection[str]) -> None:
        """Refuses an index that holds more than a family reads.

        Args:
            known: Components and settings of the family.

        Raises:
            CheckpointFileError: If there is another entry which is not marked as absent.
        """
        for name, value in self.index.items():
            if name not in (*known, *NOTES) and value not in ABSENT:
                raise CheckpointFileError(
                    f"{self.folder / INDEX_FILE}: {name} is {value!r}; {self.family} has no such "
                    "component or setting"
                )

    def component_files(self, name: str, stem: str) -> tuple[Path, ...]:
        """Configuration and weights of a component.

        Args:
            name: The component's name, which is its subfolder.
            stem: Beginning of the names of its weights; see `find_weights`.

        Raises:
            CheckpointFileError: If its weights are missing or cannot be read.
            FileNotFoundError: If it has no configuration.
        """
        folder = self.folder / name
        if not (folder / CONFIG_FILE).is_file():
            raise FileNotFoundError(
                f"{folder / CONFIG_FILE}: component {name!r} is missing from the checkpoint"
            )
        return (folder / CONFIG_FILE, *find_weights(folder, stem, self.variant).all_files)
