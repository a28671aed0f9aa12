"""Environments that hold the base package and nothing else, one for each Python and NumPy.

They stand in `build/pythons/` and are made again only where their packages or ours have changed.
"""

from __future__ import annotations

import glob
import hashlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "build" / "pythons"
IMPORTED = ("client", "pipeline", "src")
"""Folders whose modules the client imports."""
LEFT_OUT = (".*", "build", "checkpoints", "docs", "tests", "*.egg-info", "__pycache__")
EXPORTED = ("*.onnx*", "*.plan", "*.pt2", "*.npz", "*.partial", "export.lock.json")
INSTALL_TIMEOUT_S = 300
CONFLICT = "ResolutionImpossible"
"""Pip's word for ranges that exclude each other, which is ours to mend."""


class CannotBeHadError(RuntimeError):
    """A Python or a package is not there; the message says which."""


@dataclass(frozen=True)
class Environment:
    """A Python with certain packages.

    Args:
        python: Its version, `3.10` for example.
        name: Word for the packages.
        requirements: Packages that take the place of the newest that fit.
    """

    python: str
    name: str
    requirements: tuple[str, ...]

    def made(self) -> Path:
        """The folder of its programs, with the wheel of this tree installed.

        Raises:
            CannotBeHadError: If the Python or a package is not there.
        """
        folder = FOLDER / f"{self.python}-{self.name}"
        programs = folder / "bin"
        packages = [*self.requirements, *_dependencies()]
        wheel = _wheel()
        wanted = {"packages": packages, "wheel": wheel.parent.name}
        stamp = folder / "made.json"
        held = json.loads(stamp.read_text()) if stamp.exists() else {}
        if held == wanted:
            return programs
        stamp.unlink(missing_ok=True)
        if held.get("packages") != packages:
            shutil.rmtree(folder, ignore_errors=True)
            _run([_interpreter(self.python), "-m", "venv", "--without-pip", str(folder)])
            _install(programs, "--prefer-binary", *packages)
        _install(programs, "--no-deps", "--force-reinstall", str(wheel))
        stamp.write_text(json.dumps(wanted))
        return programs


def clean_environment() -> dict[str, str]:
    """Variables for programs that must not see this tree or what its environment holds."""
    return {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("PYTHON", "REELSERVE_", "COV_"))
    }


def _interpreter(version: str) -> str:
    installed = glob.glob(os.path.expanduser(f"~/.pyenv/versions/{version}.*/bin/python"))
    for candidate in (shutil.which(f"python{version}"), *sorted(installed)):
        if candidate is None:
            continue
        told = subprocess.run(
            [candidate, "-c", "import sys, venv; print('%d.%d' % sys.version_info[:2])"],
            capture_output=True,
            text=True,
            env=clean_environment(),
        )
        if told.stdout.strip() == version:
            return candidate
    raise CannotBeHadError(f"there is no Python {version} on PATH or in ~/.pyenv/versions")


def _dependencies() -> list[str]:
    """What the base package asks for."""
    for line in (ROOT / "pyproject.toml").read_text().splitlines():
        if line.startswith("dependencies = "):
            return list(json.loads(line.removeprefix("dependencies = ")))
    raise AssertionError("pyproject.toml names no dependencies")


def _wheel() -> Path:
    """The wheel of this tree, in a folder that is named after what it holds."""
    digest = hashlib.sha256((ROOT / "pyproject.toml").read_bytes())
    for room in IMPORTED:
        for file in sorted((ROOT / room).rglob("*.py")):
            digest.update(str(file.relative_to(ROOT)).encode() + file.read_bytes())
    folder = FOLDER / f"wheel-{digest.hexdigest()[:16]}"
    if not list(folder.glob("*.whl")):
        for old in FOLDER.glob("wheel-*"):
            shutil.rmtree(old)
        with tempfile.TemporaryDirectory() as place:
            tree = Path(place, "tree")
            left_out = shutil.ignore_patterns(*LEFT_OUT, *EXPORTED)
            # A build leaves files in the tree that it builds.
            shutil.copytree(ROOT, tree, symlinks=True, ignore=left_out)
            _pip("wheel", "--no-deps", "--no-build-isolation", "-w", str(folder), str(tree))
    (wheel,) = folder.glob("*.whl")
    return wheel


def _install(programs: Path, *arguments: str) -> None:
    _pip("--python", str(programs / "python"), "install", "--no-compile", *arguments)


def _pip(*arguments: str) -> None:
    _run([sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check", *arguments])


def _run(command: list[str]) -> None:
    done = subprocess.run(
        command,
        capture_output=True,
        text=True,
        env=clean_environment(),
        timeout=INSTALL_TIMEOUT_S,
    )
    if done.returncode:
        assert CONFLICT not in done.stderr, done.stderr
        lines = [line for line in done.stderr.splitlines() if line.strip()]
        raise CannotBeHadError(lines[-1] if lines else f"{command[0]} ended with an error")
