"""Mermaid's own parser takes every diagram of the pages."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

import pytest

from tests.docs.mermaid_parser import parse_errors
from tests.tool_output import ToolError

ROOT = Path(__file__).parents[2]
INSTALLED = ROOT / "build" / "mermaid"
BLOCK = re.compile(r"^```mermaid\n(.*?)^```$", re.MULTILINE | re.DOTALL)
NOT_OURS = ("build", "dist")


def pages(root: Path) -> list[Path]:
    """Markdown files under a folder, without what is built or installed there."""
    folders = [path for path in root.iterdir() if path.is_dir() and path.name not in NOT_OURS]
    ours = (folder for folder in folders if not folder.name.startswith("."))
    return sorted((*root.glob("*.md"), *(page for folder in ours for page in folder.rglob("*.md"))))


def diagrams(root: Path) -> dict[str, str]:
    """Every diagram of the pages under a folder, by its page and its place there."""
    return {
        f"{page.relative_to(root)}, diagram {number}": diagram
        for page in pages(root)
        for number, diagram in enumerate(BLOCK.findall(page.read_text(encoding="utf-8")), 1)
    }


def errors(texts: Sequence[str]) -> list[str]:
    try:
        return parse_errors(INSTALLED, texts)
    except ToolError as error:
        pytest.skip(f"no mermaid: {error}")


def test_every_diagram_of_the_pages_parses():
    found = diagrams(ROOT)
    assert {"README.md, diagram 1", "docs/system.md, diagram 1"} <= found.keys()
    wrong = zip(found, errors(list(found.values())), strict=True)
    assert {name: error for name, error in wrong if error} == {}


def test_parser_takes_no_broken_diagram():
    good = {"flowchart": 'flowchart LR\n  a["two<br/>lines"] --> b([end])\n'}
    broken = {
        "arrow": "flowchart LR\n  a -->\n",
        "bracket": "flowchart LR\n  a[not closed --> b\n",
        "subgraph": "flowchart LR\n  subgraph stages\n  a --> b\n",
        "quote": 'flowchart LR\n  a["a "quote" inside"] --> b\n',
        "kind": "flow LR\n  a --> b\n",
        "sequence": "sequenceDiagram\n  caller->>server no colon\n",
        "state": "stateDiagram-v2\n  [*] -> waiting\n",
    }
    found = zip((*good, *broken), errors([*good.values(), *broken.values()]), strict=True)
    assert [name for name, error in found if not error] == list(good)


def test_diagrams_are_found_wherever_pages_are(tmp_path):
    page = "text\n```mermaid\nflowchart LR\n  a --> b\n```\n\n```sh\nls\n```\n"
    for name in ("a.md", "docs/notes/b.md", "build/c.md", ".venv/d.md"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(page * 2)
    names = {name: 2 for name in ("a.md", "docs/notes/b.md")}
    assert list(diagrams(tmp_path)) == [
        f"{name}, diagram {number + 1}" for name, many in names.items() for number in range(many)
    ]


def test_parser_says_so_when_it_is_not_installed(tmp_path):
    with pytest.raises(ToolError, match="make test"):
        parse_errors(tmp_path, [])
