"""Finds a Triton server on this machine and lays out the files that it needs to start."""

from __future__ import annotations

import ctypes.util
import importlib.util
import os
import shutil
import sys
import sysconfig
from dataclasses import dataclass
from pathlib import Path

import reelserve

BACKENDS_FOLDER = Path(__file__).parents[1] / "backends"
"""Python-based backends of this package, each named after the official one it stands in for."""

PACKAGE = Path(reelserve.__file__).parent
"""What the Python stages import from."""


class InstallationError(RuntimeError):
    """No usable Triton server was found; the message says what to install."""


@dataclass(frozen=True)
class Installation:
    """A Triton server that can be started.

    Args:
        binary: The `tritonserver` executable.
        environment: Variables to set on top of the caller's.
        arguments: Arguments that depend on where the server came from.
    """

    binary: Path
    environment: dict[str, str]
    arguments: tuple[str, ...]


def pip_installation(run_dir: Path) -> Installation:
    """Uses the server inside the `nvidia-pytriton` wheel, without importing that package.

    Args:
        run_dir: Existing folder of this run; the backend folder is assembled below it.

    Raises:
        InstallationError: If the wheel, its stub for this Python or libpython is missing.
    """
    spec = importlib.util.find_spec("pytriton")
    if spec is None or not spec.submodule_search_locations:
        raise InstallationError(
            "no Triton server: install it with `pip install nvidia-pytriton` "
            "(Linux x86-64, Python 3.10 to 3.12) or name a binary with --tritonserver"
        )
    package = Path(spec.submodule_search_locations[0])
    root = package / "tritonserver"
    libraries = package.parent / "nvidia_pytriton.libs"
    _require(root / "bin" / "tritonserver")
    check_executable(run_dir)
    backends = _assemble_backends(root, run_dir / "backends")
    environment = python_environment()
    environment["LD_LIBRARY_PATH"] = _joined(
        [str(libraries), str(libpython_folder()), os.environ.get("LD_LIBRARY_PATH", "")]
    )
    return Installation(
        binary=root / "bin" / "tritonserver",
        environment=environment,
        arguments=(
            f"--backend-directory={backends}",
            f"--cache-directory={root / 'caches'}",
        ),
    )


def native_installation(binary: Path) -> Installation:
    """Uses NVIDIA's own installation, for example of its container, with its own backends.

    This package must be installed into the Python that its Python backend embeds.

    Args:
        binary: Its `tritonserver`.

    Raises:
        InstallationError: If `binary` is not an executable file.
    """
    if not (binary.is_file() and os.access(binary, os.X_OK)):
        raise InstallationError(f"--tritonserver {binary} is not an executable file")
    return Installation(binary=binary.resolve(), environment=python_environment(), arguments=())


def python_environment() -> dict[str, str]:
    """Lets the stages' embedded interpreter find the packages of this one.

    It takes its prefix from the first `python3` on PATH. PYTHONPATH alone does not do: the
    interpreter reads it on Python 3.10 and not on later ones (pybind11 embeds an isolated
    configuration).
    """
    installed = [path for path in sys.path if path.endswith(("site-packages", "dist-packages"))]
    return {
        "PATH": _joined([str(Path(sys.executable).parent), os.environ.get("PATH", "")]),
        "PYTHONPATH": _joined(installed),
        # The server's log is where a stage's messages belong, at once and not in blocks.
        "PYTHONUNBUFFERED": "1",
        # As `reelserve.runtimes` says; NVIDIA's own backends import nothing of ours.
        "ORT_DISABLE_TELEMETRY": "1",
        # Stages share the cores: BLAS behind NumPy must not start a pool in each of them.
        "OMP_NUM_THREADS": "1",
        "OPENBLAS_NUM_THREADS": "1",
    }


def libpython_folder() -> Path:
    """The folder of the shared libpython that the Python backend's stub is linked to.

    Raises:
        InstallationError: If this Python has none.
    """
    name = f"libpython{sys.version_info.major}.{sys.version_info.minor}.so.1.0"
    folders = [sysconfig.get_config_var("LIBDIR"), f"{sys.base_prefix}/lib"]
    for folder in folders:
        if folder and (Path(folder) / name).exists():
            return Path(folder)
    short = f"python{sys.version_info.major}.{sys.version_info.minor}"
    if ctypes.util.find_library(short):
        # Known to the dynamic linker already; any folder will do.
        return Path(sys.base_prefix) / "lib"
    raise InstallationError(
        f"{name} was not found in {folders}: Triton's Python backend needs a Python built with "
        f"--enable-shared (Debian and Ubuntu: apt install lib{short})"
    )


def check_executable(folder: Path) -> None:
    """Raises `InstallationError` if nothing in a folder may be run.

    Triton would wait for a stage that cannot start until the bound on the start.
    """
    if os.statvfs(folder).f_flag & os.ST_NOEXEC:
        raise InstallationError(
            f"{folder.parent} is mounted noexec, and the processes of the stages are started from "
            "there; TMPDIR must name a folder that programs may be run from"
        )


def _assemble_backends(root: Path, folder: Path) -> Path:
    """Builds Triton's backend folder: NVIDIA's Python backend, its stub, and our backends."""
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    stub = root / "python_backend_stubs" / version / "triton_python_backend_stub"
    if not stub.is_file():
        raise InstallationError(
            f"this nvidia-pytriton has no stub for Python {version}: use Python 3.10 to 3.12"
        )
    python = folder / "python"
    python.mkdir(parents=True, exist_ok=True)
    for name in ("libtriton_python.so", "triton_python_backend_utils.py"):
        # A copy: Triton refuses a backend library that is a link out of its folder.
        shutil.copy(_require(root / "backends" / "python" / name), python / name)
    shutil.copy(stub, python / stub.name)
    (python / stub.name).chmod(0o755)
    # Triton puts this folder on the stages' path, so they find what they import even where this
    # package is not installed.
    _link(PACKAGE, python / PACKAGE.name)
    for backend in sorted(path.parent for path in BACKENDS_FOLDER.glob("*/model.py")):
        _link(backend, folder / backend.name)
    return folder


def _require(path: Path) -> Path:
    if not path.exists():
        raise InstallationError(f"nvidia-pytriton is incomplete: {path} is missing; reinstall it")
    return path


def _link(source: Path, target: Path) -> None:
    """Points the symbolic link `target` at `source`, whatever it pointed at before."""
    target.unlink(missing_ok=True)
    target.symlink_to(source.resolve(), target_is_directory=source.is_dir())


def _joined(paths: list[str]) -> str:
    return os.pathsep.join(path for path in paths if path)
