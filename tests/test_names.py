"""Two things never share a name: who looks one up finds one place."""

from __future__ import annotations

import ast
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[1]
ROOMS = sorted({file.parent.name for file in ROOT.glob("*/__init__.py")} - {"tests"})
ENTRY_POINTS = {"main", "run", "TritonPythonModel", "ResultT"}
"""Names that Python, the `reelserve` command and Triton look for, and a variable of types."""


def public_names(source: str) -> Iterator[str]:
    """Classes, functions and aliases of types that a module defines for others."""
    for node in ast.parse(source).body:
        if isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            names = [node.name]
        elif isinstance(node, ast.Assign):
            names = [target.id for target in node.targets if isinstance(target, ast.Name)]
            names = [name for name in names if name[0].isupper() and not name.isupper()]
        else:
            continue
        yield from (name for name in names if not name.startswith("_"))


def shared_names(root: Path) -> dict[str, list[str]]:
    """Names that several modules define, with the modules."""
    modules = defaultdict(list)
    for file in (file for room in ROOMS for file in sorted((root / room).rglob("*.py"))):
        for name in set(public_names(file.read_text(encoding="utf-8"))):
            modules[name].append(str(file.relative_to(root)))
    return {name: files for name, files in modules.items() if len(files) > 1}


def test_no_name_is_defined_twice():
    shared = shared_names(ROOT)
    assert {name: shared[name] for name in shared.keys() - ENTRY_POINTS} == {}


def test_shared_name_is_found_when_one_is_an_alias(tmp_path):
    for name, source in (("pipeline", "class Clip: ..."), ("server", "LIMIT = 1\nClip = bytes")):
        (tmp_path / name).mkdir()
        (tmp_path / name / "module.py").write_text(source)
    assert shared_names(tmp_path) == {"Clip": ["pipeline/module.py", "server/module.py"]}
