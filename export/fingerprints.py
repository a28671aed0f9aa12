"""Hashes of the sources of graphs, which tell the graphs that are up to date."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from importlib import metadata
from pathlib import Path

import reelserve.export.engines
import reelserve.export.families
import reelserve.export.stages
import reelserve.kernels
import reelserve.models
import reelserve.pipeline.contract
import reelserve.runtimes.graph_spec
import reelserve.runtimes.tensorrt_editions
from reelserve.export.engines import Engine
from reelserve.export.families import CheckpointFamily
from reelserve.export.stages import Precision, StageSource
from reelserve.runtimes.export_lock import file_sha256


def graph_fingerprint(
    family: CheckpointFamily, engine: Engine, stage: str, precision: Precision
) -> str:
    """Hash of everything that shapes the graph that an engine builds of a checkpoint's stage.

    Raises:
        FileNotFoundError: If a component is missing.
    """
    made_by = {
        **engine.versions(),
        "engine": engine.name,
        "architecture": engine.architecture(),
        "precision": precision,
    }
    return stage_fingerprint(stage, family.source(stage), made_by)


def stage_fingerprint(stage: str, source: StageSource, made_by: Mapping[str, str]) -> str:
    """Hash of everything that shapes a stage's graph.

    Args:
        stage: Name of the stage.
        source: Its checkpoint files and settings.
        made_by: Engine, precision, versions of libraries.

    Returns:
        Hexadecimal SHA-256.
    """
    made_of = {source.library: metadata.version(source.library)} if source.library else {}
    settings = json.dumps([stage, source.settings, made_of, dict(sorted(made_by.items()))])
    return combined(settings, (*source.files, *code_files()))


def combined(text: str, files: Iterable[Path] = ()) -> str:
    """Hash of a text and the content of files, in their order."""
    digest = hashlib.sha256(text.encode())
    # Gigabytes of weights: one core hashes what a disk reads, but not what memory holds.
    with ThreadPoolExecutor() as pool:
        for content in pool.map(_file_hash, files):
            digest.update(content.encode())
    return digest.hexdigest()


def _file_hash(path: Path) -> str:
    state = path.stat()
    return _content(path, state.st_size, state.st_mtime_ns)


@lru_cache(maxsize=4096)
def _content(path: Path, _size: int, _changed_ns: int) -> str:
    """Hash of a file's content, read once a run: stages and lock share gigabytes of weights."""
    return file_sha256(path)


def code_files() -> list[Path]:
    """Code that decides what a graph looks like."""
    packages = (reelserve.models, reelserve.export.engines, reelserve.export.families)
    folders = [Path(package.__file__).parent for package in packages if package.__file__]
    files = [path for folder in folders for path in sorted(folder.rglob("*.py"))]
    # Packages and plugins hold the kernels; the benchmarks beside them shape nothing.
    kernels = sorted(Path(str(reelserve.kernels.__file__)).parent.glob("*.py"))
    runtimes = (reelserve.runtimes.graph_spec, reelserve.runtimes.tensorrt_editions)
    modules = (reelserve.export.stages, reelserve.pipeline.contract, *runtimes)
    return [*files, *kernels, *(Path(module.__file__) for module in modules if module.__file__)]
