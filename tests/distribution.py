"""Which tests stay together in one worker, so that what they share is made once."""

from __future__ import annotations

from collections.abc import Iterable

import pytest

EACH_WORKER = frozenset({"compiled_family", "family", "tiny_checkpoint", "tiny_repository"})
"""Fixtures of a second or less: cheaper made twice than waited for."""


def group(items: Iterable[pytest.Item]) -> None:
    """Gives one `xdist_group` to tests that share a fixture wider than a function.

    Tests joined through others are in one group too. Without such a fixture a test stands alone
    and goes wherever a worker is free.
    """
    items = list(items)
    parent: dict[str, str] = {}

    def root(name: str) -> str:
        while parent.setdefault(name, name) != name:
            name = parent[name]
        return name

    shared = [_shared_fixtures(item) for item in items]
    for names in shared:
        for name in names[1:]:
            parent[root(name)] = root(names[0])
    for item, names in zip(items, shared, strict=True):
        if names and item.get_closest_marker("xdist_group") is None:
            item.add_marker(pytest.mark.xdist_group(root(names[0])))


def _shared_fixtures(item: pytest.Item) -> list[str]:
    """Fixtures of ours that an item shares with others, by file and name."""
    info = getattr(item, "_fixtureinfo", None)
    definitions = info.name2fixturedefs.values() if info is not None else ()
    return [
        f"{made[-1].baseid}::{made[-1].argname}"
        for made in definitions
        if made[-1].scope != "function"
        and made[-1].baseid.startswith("tests")
        and made[-1].argname not in EACH_WORKER
    ]
