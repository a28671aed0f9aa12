"""Which tests stay in one worker, so that what they share is made once, and which begin."""

from __future__ import annotations

from collections.abc import Iterable

import pytest

EACH_WORKER = frozenset({"compiled_family", "family", "tiny_checkpoint", "tiny_repository"})
"""Fixtures of a second or less: cheaper made twice than waited for."""


SLOW_MARKS = ("compile", "server")
"""Tests that take long, the longest first."""


def slow_first(items: list[pytest.Item]) -> None:
    """Lets slow tests begin, so that no worker is left with one of them when the others are done.

    xdist keeps this order with `--no-loadscope-reorder`.
    """

    def rank(item: pytest.Item) -> int:
        marked = [item.get_closest_marker(name) is not None for name in SLOW_MARKS]
        return marked.index(True) if any(marked) else len(marked)

    items.sort(key=rank)


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
