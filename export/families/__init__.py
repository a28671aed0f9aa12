"""Checkpoint families: how the components of a checkpoint become stages."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Protocol

from reelserve.export.families.registry import FAMILIES

if TYPE_CHECKING:
    from reelserve.export.families.layout import Checkpoint
    from reelserve.export.stages import ExportStage, StageSource, Target
    from reelserve.pipeline.checkpoint import CheckpointSpec

__all__ = ["CheckpointFamily", "family_of"]


class CheckpointFamily(Protocol):
    """One checkpoint, seen as stages. It can be pickled, to load stages in another process."""

    name: str
    """Name in the registry."""

    def source(self, stage: str) -> StageSource:
        """Files and settings that an engine stage is made from."""
        ...

    def check(self, stage: str) -> None:
        """Refuses weights that do not fit an engine stage, without memory for them."""
        ...

    def build(self, stage: str, target: Target = ...) -> ExportStage:
        """Loads an engine stage for a device and a precision, by default the CPU and fp32."""
        ...

    def spec(self) -> CheckpointSpec:
        """Limits, latents and scheduler, for the serving side; the exporter adds the engine."""
        ...

    def tokenizer(self) -> bytes:
        """Content of the `tokenizer.json` that prompts are tokenized with."""
        ...


def family_of(checkpoint: Checkpoint, profile: Mapping[str, Any] | None = None) -> CheckpointFamily:
    """The adapter for a checkpoint.

    Args:
        checkpoint: The opened folder.
        profile: Changes of the request limits: field to a value or to members of its range.

    Raises:
        ValueError: If no adapter knows the checkpoint's class, or its index holds what the adapter
            does not read.
    """
    rows = {row.class_name: row for row in FAMILIES.values()}
    name = checkpoint.family
    if name not in rows:
        raise ValueError(
            f"{checkpoint.folder}: unknown pipeline class {name!r}; known are "
            f"{', '.join(sorted(rows))}"
        )
    checkpoint.require_entries(rows[name].entries)
    module, adapter = rows[name].adapter
    family: CheckpointFamily = getattr(importlib.import_module(f"{__name__}.{module}"), adapter)(
        checkpoint, profile or {}
    )
    return family
