"""Bounds on the sizes that a configuration names, checked before anything is made of them.

Weights that do not fit are refused from their headers alone, but making even an empty module of a
million layers takes minutes, and tables that no file holds would take gigabytes.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from reelserve.pipeline.checkpoint_files import CheckpointFileError

MAX_LAYERS = 256
"""Layers or blocks of one kind; the largest public models have some 60."""
MAX_VOCABULARY = 2**20
"""Tokens; UMT5 has 256,384."""
MAX_SIZE = 2**16
"""Any other whole number, a width above all: T5-11B's feed-forward layers have 65,536."""
MAX_WIDTH = 2**14
"""Heads times the width of a head; T5-11B has 16,384."""
MAX_ENTRIES = 256
"""Entries of a list."""
WIDTHS = (
    ("num_attention_heads", "attention_head_dim"),
    ("cross_attention_heads", "cross_attention_head_dim"),
    ("num_heads", "d_kv"),
)


def check_sizes(path: Path, config: Mapping[str, Any]) -> None:
    """Refuses a configuration that asks for more than any known model has.

    Args:
        path: File that it was read from, for the message.
        config: The parsed file.

    Raises:
        CheckpointFileError: If a size is beyond its limit, named with both.
    """
    for name, value in config.items():
        _check(path, name, value)
    for heads, width in WIDTHS:
        factors = config.get(heads), config.get(width)
        if all(isinstance(factor, int) for factor in factors):
            product = factors[0] * factors[1]  # type: ignore[operator]
            if product > MAX_WIDTH:
                raise CheckpointFileError(
                    f"{path}: {heads} · {width} is {product}; the limit is {MAX_WIDTH}"
                )


def _check(path: Path, name: str, value: object) -> None:
    if isinstance(value, list):
        if len(value) > MAX_ENTRIES:
            raise CheckpointFileError(
                f"{path}: {name} has {len(value)} entries; the limit is {MAX_ENTRIES}"
            )
        for entry in value:
            _check(path, name, entry)
    elif isinstance(value, int) and value > _limit(name):
        raise CheckpointFileError(f"{path}: {name} is {value}; the limit is {_limit(name)}")


def _limit(name: str) -> int:
    if "layers" in name or "blocks" in name:
        return MAX_LAYERS
    return MAX_VOCABULARY if "vocab" in name else MAX_SIZE
