"""Editors follow every import of ours: asked of pyright, through the installed package."""

from __future__ import annotations

import ast
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

pytest.importorskip("pyright", reason="pyright is not installed: `make install-dev`")

ROOT = Path(__file__).parents[1]
ROOMS = sorted(file.parent for file in ROOT.glob("*/__init__.py"))
UNRESOLVED = ("reportMissingImports", "reportAttributeAccessIssue", "reportMissingModuleSource")


def own_imports() -> Iterator[str]:
    """Statements that import something of this project."""
    for room in ROOMS:
        for file in room.rglob("*.py"):
            for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
                if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("reelserve"):
                    yield from (f"from {node.module} import {name.name}" for name in node.names)
                elif isinstance(node, ast.Import):
                    names = (name.name for name in node.names)
                    yield from (f"import {name}" for name in names if name.startswith("reelserve"))


def unresolved(folder: Path, statements: list[str]) -> list[str]:
    """Statements that pyright cannot follow from a file outside the project."""
    folder.joinpath("probe.py").write_text("\n".join(statements))
    prefix = Path(sys.prefix)
    settings = {"include": ["probe.py"], "venvPath": str(prefix.parent), "venv": prefix.name}
    folder.joinpath("pyrightconfig.json").write_text(json.dumps(settings))
    ended = subprocess.run(
        [sys.executable, "-m", "pyright", "--outputjson", "--project", str(folder)],
        capture_output=True,
        text=True,
        check=False,
    )
    try:
        found = json.loads(ended.stdout)
    except json.JSONDecodeError:
        pytest.skip(f"pyright does not run here: {ended.stderr or ended.stdout}")
    assert found["summary"]["filesAnalyzed"] == 1
    return [
        statements[problem["range"]["start"]["line"]]
        for problem in found["generalDiagnostics"]
        if problem.get("rule") in UNRESOLVED
    ]


def test_every_import_of_ours_resolves_and_no_other(tmp_path):
    statements = sorted(set(own_imports()))
    assert len(statements) > 500
    missing = ["import reelserve.nothing", "from reelserve.client import Nobody"]
    assert unresolved(tmp_path, [*statements, *missing]) == missing
