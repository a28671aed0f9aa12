"""What holds for the project as a whole: pages, exports, commands, pins."""

from __future__ import annotations

import ast
import importlib
import re
from importlib import metadata
from pathlib import Path

import pytest

from reelserve.client.cli import COMMAND_GROUP
from reelserve.tools.figures.command import fill_pages

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "src" / "reelserve"
PAGES = sorted((*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), *ROOT.glob("kernels/*.md")))
BUILT = ("build/", ".venv")
"""Named in pages, made by commands."""
CODE = re.compile(r"`([^`\s]+)`")
LINK = re.compile(r"\]\(([^)#:]+)\)")
ANCHOR = re.compile(r"\]\(([^)#:]*)#([^)]+)\)")
HEADING = re.compile(r"^#+ (.+)$", re.MULTILINE)
TORCH = re.compile(r"^\s*(?:import|from) torch\b", re.MULTILINE)
ROW = re.compile(r"^\| (`.+) \|$", re.MULTILINE)
"""A row of a table that begins with a file."""
SUFFIXES = (".md", ".py", ".txt", ".toml", ".json", ".yaml", ".pbtxt", ".png", ".csv")
MAX_LINES = 400
FOLDERS = [
    path for path in ROOT.iterdir() if path.is_dir() and not path.name.startswith((".", "build"))
]
ROOMS = sorted({file.parent.name for file in ROOT.glob("*/__init__.py")} - {"tests"})


def named_in_code(text: str) -> set[str]:
    """Code that starts with a folder of the project or ends like a file."""
    return {
        name
        for name in CODE.findall(text)
        if not name.startswith((*BUILT, "/", "$"))
        and (name.endswith(SUFFIXES) or ("/" in name and (ROOT / name.split("/")[0]).is_dir()))
    }


def exists(name: str) -> bool:
    # A bare file name may stand for many files, such as every stage's model.py.
    pattern = re.sub(r"<[^>]*>", "*", name).rstrip("/")
    if "/" in pattern or list(ROOT.glob(pattern)):
        return any(ROOT.glob(pattern))
    return any(any(folder.rglob(pattern)) for folder in FOLDERS)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_path_named_in_a_page_exists(page):
    text = page.read_text(encoding="utf-8")
    assert [name for name in sorted(named_in_code(text)) if not exists(name)] == []
    assert [link for link in LINK.findall(text) if not (page.parent / link).exists()] == []


def anchors(page: Path) -> set[str]:
    """What may follow `#` in a link to a page, as GitHub makes it from the page's headings."""
    headings = HEADING.findall(page.read_text(encoding="utf-8"))
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_link_to_a_heading_finds_it(page):
    links = ANCHOR.findall(page.read_text(encoding="utf-8"))
    targets = ((page.parent / name if name else page, anchor) for name, anchor in links)
    assert [anchor for target, anchor in targets if anchor not in anchors(target)] == []


def test_architecture_names_what_imports_torch_where_a_server_runs():
    text = (ROOT / "ARCHITECTURE.md").read_text(encoding="utf-8")
    (paragraph,) = [part for part in text.split("\n\n") if part.startswith("torch is imported by")]
    importing = {
        str(file.relative_to(ROOT))
        for room in ("client", "loadtest", "model_repository", "pipeline", "runtimes", "server")
        for file in (ROOT / room).rglob("*.py")
        if TORCH.search(file.read_text(encoding="utf-8"))
    }
    assert {name for name in named_in_code(paragraph) if name.endswith(".py")} == importing


def tasks() -> dict[str, tuple[int, set[str]]]:
    """Each task of "Where to go": how many files it may touch, and the files of its table."""
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    _, _, part = text.partition("## Where to go\n")
    part, _, _ = part.partition("\n## ")
    parts = re.split(r"^### (.+) \((\d+)\)$", part, flags=re.MULTILINE)[1:]
    return {
        name: (int(limit), {path for row in ROW.findall(rows) for path in named_in_code(row)})
        for name, limit, rows in zip(parts[::3], parts[1::3], parts[2::3], strict=True)
    }


@pytest.mark.parametrize("task", tasks())
def test_task_of_a_newcomer_touches_few_files_that_exist(task):
    limit, files = tasks()[task]
    assert 0 < len(files) <= limit
    assert [file for file in sorted(files) if not exists(file)] == []


def test_four_tasks_say_where_to_go():
    limits = {name: limit for name, (limit, _) in tasks().items()}
    assert limits == {
        "Add a family": 8,
        "Add a metric": 6,
        "Change the upsampler": 8,
        "Mend a cancel bug": 8,
    }


def test_paths_are_found_in_the_readme():
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    assert {"docs/notes/", "pipeline/contract.py"} <= named_in_code(text)
    assert "docs/images/demo.gif" in LINK.findall(text)


def test_tables_agree_with_results():
    assert fill_pages(ROOT, write=False) == [], "run `make docs`"


@pytest.mark.parametrize("room", ROOMS)
def test_exports_are_sorted_and_exist(room):
    package = importlib.import_module(f"reelserve.{room}")
    exported = getattr(package, "__all__", [])
    assert list(exported) == sorted(exported)
    assert all(hasattr(package, name) for name in exported)


def test_client_exports_every_public_name_it_imports():
    tree = ast.parse((ROOT / "client" / "__init__.py").read_text())
    imported = {
        alias.name for node in tree.body if isinstance(node, ast.ImportFrom) for alias in node.names
    }
    assert imported == set(importlib.import_module("reelserve.client").__all__)


def test_every_command_can_be_loaded_and_has_help(capsys):
    entries = metadata.entry_points(group=COMMAND_GROUP)
    assert {"bench-cpu", "demo", "docs", "generate", "serve"} <= {entry.name for entry in entries}
    for entry in entries:
        with pytest.raises(SystemExit) as stopped:
            entry.load()(["--help"])
        assert stopped.value.code == 0
        assert f"reelserve {entry.name}" in capsys.readouterr().out


def test_every_room_is_linked_under_its_import_name():
    """What is imported, packaged and followed by editors is found through these links."""
    links = {path.name: path.readlink() for path in PACKAGE.iterdir() if path.is_symlink()}
    assert links == {room: Path("../..", room) for room in (*ROOMS, "model_repository")}


def test_a_wheel_holds_every_module():
    # Takes longer to import than all the rest of this file.
    from setuptools import find_packages

    files = {
        str(file.relative_to(ROOT))
        for room in ROOMS
        for file in (ROOT / room).rglob("*.py")
        if "backends" not in file.parts
    }
    packages = find_packages(str(PACKAGE.parent))
    held = {
        f"{package.removeprefix('reelserve.').replace('.', '/')}/{file.name}"
        for package in packages
        for file in (PACKAGE.parent / package.replace(".", "/")).glob("*.py")
    }
    assert files - held == set()


def test_no_file_is_too_long():
    long = {
        str(file.relative_to(ROOT)): count
        for folder in FOLDERS
        for file in folder.rglob("*.py")
        if (count := len(file.read_text().splitlines())) > MAX_LINES
    }
    assert not long


def test_constraints_agree_with_pyproject():
    pin = re.compile(r"([a-z0-9-]+)(?:\[\w+\])?==([\w.]+)")
    constraints = pin.findall((ROOT / "constraints.txt").read_text())
    pinned = pin.findall((ROOT / "pyproject.toml").read_text())
    assert pinned
    assert set(pinned) <= set(constraints)
