"""Hints how to install what is missing, against the extras of `pyproject.toml`."""

from __future__ import annotations

import ast
import re
import sys
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from reelserve.pipeline import extras
from reelserve.pipeline.extras import DISTRIBUTIONS, install_advice, normal

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
EXTRAS = {
    "": PROJECT["dependencies"],
    **PROJECT["optional-dependencies"],
}
HELD = {name: {normal(Requirement(one).name) for one in held} for name, held in EXTRAS.items()}
ROOMS = sorted({file.parent for file in ROOT.glob("*/__init__.py")} - {ROOT / "tests"})
HINT = re.compile(r"reelserve\[(?P<extra>[\w,]+)\]")
ELSEWHERE = {
    "c_python_backend_utils": "Triton",
    "triton_python_backend_utils": "Triton",
    "google": "protobuf, which tritonclient brings",
    "grpc": "tritonclient brings it, too",
    "IPython": "the notebook",
    "tensorrt": "full TensorRT, beside the edition for RTX GPUs",
    "tensorrt_bindings": "full TensorRT",
}


def imported(file: Path) -> set[str]:
    """Packages that a module imports, ours and the standard library's left out."""
    found = set()
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found.add(node.module.partition(".")[0])
    return found - {"reelserve"} - set(sys.stdlib_module_names)


@pytest.fixture(autouse=True)
def as_in_this_tree(monkeypatch):
    """The extras of this tree, whatever is installed."""
    told = [
        f"{requirement.partition(';')[0]}; extra == '{name}'" if name else requirement
        for name, held in EXTRAS.items()
        for requirement in held
    ]
    monkeypatch.setattr(extras.metadata, "requires", lambda project: told)


def test_advice_names_an_extra_that_holds_what_is_missing():
    # Here and not in a parameter, for which every worker would read all code.
    packages = {one for room in ROOMS for file in room.rglob("*.py") for one in imported(file)}
    wrong = []
    for package in sorted(packages - set(ELSEWHERE)):
        for room in ("", *(room.name for room in ROOMS)):
            advice = install_advice(f"{package}.inside", room)
            named = HINT.search(advice)
            held = HELD[named["extra"] if named else ""]
            if normal(DISTRIBUTIONS.get(package, package)) not in held:
                wrong.append((package, room, advice))
    assert len(packages) > 20 and wrong == []


def test_advice_prefers_the_extra_of_the_room():
    assert install_advice("onnxruntime", "export") == "`pip install 'reelserve[export]'`"
    assert install_advice("onnxruntime") == "`pip install 'reelserve[server]'`"
    assert install_advice("numpy") == "`pip install reelserve`"
    assert install_advice("pytriton") == "`pip install nvidia-pytriton`"
    assert install_advice("reelserve.gone") == "`pip install --force-reinstall reelserve`"


def test_every_extra_that_is_named_somewhere_is_there():
    files = [file for room in ROOMS for file in room.rglob("*.py")]
    files += [*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), ROOT / "Makefile"]
    named = {
        (str(file.relative_to(ROOT)), extra)
        for file in files
        for hint in HINT.findall(file.read_text())
        for extra in hint.split(",")
    }
    assert {one for one in named if one[1] not in EXTRAS} == set()


def test_hints_that_are_written_down_hold_what_they_are_for():
    assert {"av"} <= HELD["video"]
    assert {"diffusers", "transformers", "sentencepiece"} <= HELD["families"]
    assert {"locust", "matplotlib", "jinja2"} <= HELD["loadtest"]
    assert normal(DISTRIBUTIONS["tensorrt_rtx_bindings"]) in HELD["tensorrt"]
