"""Places that commands are told to write to, looked at before there is anything to write."""

from __future__ import annotations

import ast
import os
from argparse import ArgumentTypeError
from pathlib import Path

import pytest

from reelserve.pipeline.output_place import check_output, output_file, output_folder

ROOT = Path(__file__).parents[2]
ROOMS = sorted({file.parent for file in ROOT.glob("*/__init__.py")} - {ROOT / "tests"})
OWN_FILES = {
    "export/engines/tensorrt/builder.py": "in a block of replaced_file",
    "loadtest/__main__.py": "between two processes",
    "loadtest/command.py": "between two processes",
    "models/loading.py": "a component of a checkpoint, whole in a new folder",
    "tools/bench/gpu/checkpoints.py": "checkpoints of a benchmark, in its work folder",
    "tools/bench/gpu/in_process.py": "between two processes",
    "tools/bench/tensorrt/serving.py": "clips of a benchmark, in its work folder",
    "tools/bench/image/unit.py": "in a temporary folder",
    "tools/faults/damages.py": "damages a copy of a repository",
}
"""Files that are written as they are, and why nobody names them."""


def test_places_that_can_be_written_are_taken(tmp_path):
    (tmp_path / "there").write_text("old")
    (tmp_path / "link").symlink_to("nowhere-yet")
    for name in ("there", "new", "a/b/new", "link"):
        assert output_file(str(tmp_path / name)) == tmp_path / name
    assert output_file("/dev/null") == Path("/dev/null")
    assert output_folder("one", "two")(str(tmp_path / "new")) == tmp_path / "new"
    assert not (tmp_path / "new").exists()


def test_places_that_cannot_be_written_are_refused_with_the_reason(tmp_path):
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").write_text("")
    (tmp_path / "kept").write_text("")
    (tmp_path / "kept").chmod(0o400)
    (tmp_path / "circle").symlink_to("circle")
    for name, words in (
        ("folder", "is a folder; it must be a file"),
        ("file/new", "is not a folder"),
        ("kept", "is read-only"),
        ("circle", "circle"),
    ):
        if name == "kept":
            (tmp_path / "kept").chmod(0o444)
        with pytest.raises(ArgumentTypeError, match=words):
            output_file(str(tmp_path / name))
    with pytest.raises(ArgumentTypeError, match="kept is read-only"):
        output_folder("new", "kept")(str(tmp_path))


@pytest.mark.skipif(os.geteuid() == 0, reason="root writes everywhere")
def test_a_folder_that_is_read_only_is_refused(tmp_path):
    tmp_path.chmod(0o555)
    with pytest.raises(PermissionError, match="is read-only"):
        check_output(tmp_path / "new")


def test_nothing_is_written_past_the_one_helper():
    """A file that somebody names must not be cut off, lose its mode, or be a device no more."""
    found = {}
    for file in (file for room in ROOMS for file in room.rglob("*.py")):
        calls = [node for node in ast.walk(ast.parse(file.read_text())) if is_write(node)]
        if calls:
            found[str(file.relative_to(ROOT))] = [call.lineno for call in calls]
    assert set(found) == set(OWN_FILES), found


def is_write(node: ast.AST) -> bool:
    """Whether something is written by a path, outside `replaced_file`'s temporary one."""
    if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Attribute):
        return False
    owner = ast.unparse(node.func.value)
    return node.func.attr in ("write_text", "write_bytes") and owner != "partial"
