"""Checks a model repository against the lock that its export wrote, before Triton starts."""

from __future__ import annotations

import re
import subprocess
from importlib import metadata
from pathlib import Path

from reelserve.pipeline.contract import PUBLIC_MODEL, STAGES
from reelserve.runtimes.export_lock import LOCK_FILE, ArtefactFile, ExportLock, LockError
from reelserve.runtimes.repository_files import VERSION, ChangedFilesError, verify_repository

AGAIN = "export the checkpoint again with `reelserve export` (bundled: make export)"
ENSEMBLE = 'platform: "ensemble"'
NVIDIA_SMI = ("nvidia-smi", "--query-gpu=compute_cap", "--format=csv,noheader")
NVIDIA_SMI_TIMEOUT_S = 60
"""A driver that is not kept loaded takes seconds for each GPU."""
GPU_ARCHITECTURES = re.compile(r"sm_\d+(\+sm_\d+)*")
"""One, or several that the stages are built for all at once."""


class RepositoryError(RuntimeError):
    """A repository cannot be served as it is; the message says why and what to do."""


def check_repository(repository: Path, *, verify: bool = False) -> ExportLock:
    """Whether a repository is whole, and was made for this machine.

    Args:
        repository: Folder with one folder a model.
        verify: Compares every file that Triton may run, too, see `verify_repository`.

    Returns:
        The lock.

    Raises:
        RepositoryError: If it cannot be served.
    """
    if not list(repository.glob("*/config.pbtxt")):
        raise RepositoryError(
            f"{repository} is no model repository: it holds no */config.pbtxt; "
            "`reelserve export` makes one"
        )
    try:
        lock = ExportLock.load(repository)
    except LockError as error:
        raise RepositoryError(f"{error}; {AGAIN}") from None
    if lock is None:
        raise RepositoryError(
            f"{repository / LOCK_FILE} is missing: nothing was exported, the export has not come "
            f"to its end, or an older version made it; {AGAIN}"
        )
    public = repository / PUBLIC_MODEL / "config.pbtxt"
    if not public.is_file() or ENSEMBLE not in public.read_text():
        raise RepositoryError(f"{public} is no ensemble: an older version laid it out; {AGAIN}")
    _check_machine(lock)
    for stage in (name for name, contract in STAGES.items() if contract.engine):
        if stage not in lock.stages:
            raise RepositoryError(f"{repository / LOCK_FILE} lacks stage {stage}; {AGAIN}")
        for file in lock.stages[stage].files:
            _check_file(repository / stage / VERSION / file.name, file)
    if verify:
        try:
            verify_repository(repository, lock)
        except ChangedFilesError as error:
            raise RepositoryError(f"{error}; {AGAIN}") from None
    return lock


def is_for_gpu(lock: ExportLock) -> bool:
    """Whether the stages were built for a GPU, or for several kinds of them."""
    return GPU_ARCHITECTURES.fullmatch(lock.architecture) is not None


def gpu_architectures() -> list[str]:
    """Architectures of the GPUs that the driver sees, as `sm_90`; empty where there is none."""
    try:
        found = subprocess.run(
            NVIDIA_SMI, capture_output=True, text=True, check=True, timeout=NVIDIA_SMI_TIMEOUT_S
        )
    except (OSError, subprocess.SubprocessError):
        return []
    return [f"sm_{line.strip().replace('.', '')}" for line in found.stdout.splitlines()]


def _check_machine(lock: ExportLock) -> None:
    if is_for_gpu(lock):
        found = gpu_architectures()
        if not set(lock.architecture.split("+")).intersection(found):
            here = f"those here are {', '.join(found)}" if found else "nvidia-smi finds none here"
            raise RepositoryError(
                f"the stages were built by engine {lock.engine} for a GPU of {lock.architecture}; "
                f"{here}: serve them on such a machine, or {AGAIN} here"
            )
    for library, version in lock.bound_versions.items():
        try:
            installed = metadata.version(library)
        except metadata.PackageNotFoundError:
            # NVIDIA's own server has its libraries elsewhere; a stage that lacks one says so.
            continue
        if installed != version:
            raise RepositoryError(
                f"the stages were built by engine {lock.engine} with {library} {version}, and "
                f"{installed} is installed: install that version, or {AGAIN}"
            )


def _check_file(path: Path, expected: ArtefactFile) -> None:
    if not path.is_file():
        raise RepositoryError(f"{path} is missing; {AGAIN}")
    size_bytes = path.stat().st_size
    if size_bytes != expected.size_bytes:
        raise RepositoryError(
            f"{path} has {size_bytes} bytes; {expected.size_bytes} were exported; {AGAIN}"
        )
