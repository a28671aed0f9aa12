"""Checkpoint families: how the components of a checkpoint become stages."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Protocol

from reelserve.export.families.bundled import BundledFamily
from reelserve.export.families.latte import LatteFamily
from reelserve.export.families.layout import Checkpoint
from reelserve.export.families.ltx import LTXFamily
from reelserve.export.stages import CPU_FP32, ExportStage, StageSource, Target
from reelserve.pipeline.checkpoint import CheckpointSpec

__all__ = ["CheckpointFamily", "family_of"]


class CheckpointFamily(Protocol):
    """One checkpoint, seen as stages. It can be pickled, to load stages in another process."""

    name: str
    """Of the family."""

    def source(self, stage: str) -> StageSource:
        """What an engine stage is made from."""
        ...

    def build(self, stage: str, target: Target = CPU_FP32) -> ExportStage:
        """Loads an engine stage for a device and a precision."""
        ...

    def spec(self, engine: str) -> CheckpointSpec:
        """What the serving side must know."""
        ...

    def tokenizer(self) -> bytes:
        """Content of the `tokenizer.json` that prompts are tokenized with."""
        ...


_FAMILIES: dict[str, Callable[[Checkpoint, Mapping[str, Any]], CheckpointFamily]] = {
    "BundledTextToVideoPipeline": BundledFamily,
    "LTXPipeline": LTXFamily,
    "LattePipeline": LatteFamily,
}


def family_of(checkpoint: Checkpoint, profile: Mapping[str, Any] | None = None) -> CheckpointFamily:
    """The adapter for a checkpoint.

    Args:
        checkpoint: The opened folder.
        profile: Changes of the request limits: field to a value or to members of its range.

    Raises:
        ValueError: If no adapter knows the checkpoint's class.
    """
    name = checkpoint.family
    if name not in _FAMILIES:
        raise ValueError(
            f"{checkpoint.folder}: unknown pipeline class {name!r}; known are "
            f"{', '.join(sorted(_FAMILIES))}"
        )
    return _FAMILIES[name](checkpoint, profile or {})
