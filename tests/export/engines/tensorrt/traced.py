"""Traces small stages that tests make themselves, and keeps the graphs for the next run."""

from __future__ import annotations

import hashlib
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from reelserve.export.engines.tensorrt.graph import write_graph
from reelserve.export.stages import ExportStage
from tests.export.kept_graphs import kept_build, own_fingerprint


def kept_write_graph(code: str) -> Callable[..., int]:
    """`write_graph`, which traces what is the same once for all tests and runs.

    Args:
        code: File of the tests that make the stages.
    """
    fingerprint = own_fingerprint(code, __file__)

    def write(stage: ExportStage, path: Path, **options: Any) -> int:
        with tempfile.TemporaryDirectory() as folder:
            graph, plugins = Path(folder) / path.name, Path(folder) / "plugins"
            kept_build(
                graph.parent,
                fingerprint,
                repr((_shape_of(stage), sorted(options.items()), path.name)),
                lambda: plugins.write_text(str(write_graph(stage, graph, **options))),
            )
            count = int(plugins.read_text())
            plugins.unlink()
            shutil.copytree(folder, path.parent, dirs_exist_ok=True)
            return count

    return write


def _shape_of(stage: ExportStage) -> tuple[object, ...]:
    """All of a stage but its code: names, sizes and weights."""
    weights = hashlib.sha256()
    for name, tensor in stage.module.state_dict().items():
        weights.update(f"{name} {tensor.dtype} {tensor.float().tolist()}".encode())
    inputs = [(tuple(tensor.shape), tensor.dtype) for tensor in stage.example_inputs]
    return (stage.name, stage.free_dims, stage.ranges, inputs, weights.hexdigest())
