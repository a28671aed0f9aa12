from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

ROOM = Path(__file__).parents[2] / "loadtest"
GENERATOR = {"__main__.py", "generator.py"}
"""What runs in the process that makes the load."""


def imported(file: Path) -> set[str]:
    names = set()
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.ImportFrom):
            names.add(node.module or "")
        elif isinstance(node, ast.Import):
            names.update(alias.name for alias in node.names)
    return names


def test_only_the_generator_imports_locust():
    for file in ROOM.glob("*.py"):
        names = {name.split(".")[0] for name in imported(file)}
        assert file.name in GENERATOR or not names & {"locust", "gevent"}, file


def test_the_command_leaves_the_standard_library_as_it_is():
    modules = "reelserve.loadtest.command, reelserve.loadtest.report"
    check = "assert not {'gevent', 'locust'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", f"import sys, {modules}; {check}"], check=True)
