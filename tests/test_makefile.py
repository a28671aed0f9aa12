from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
HIDDEN = {"help", "FORCE"}
"""`help` is what `make` alone does."""


def make(*arguments: str) -> str:
    command = ["make", "--no-print-directory", *arguments]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_make_alone_lists_every_task():
    shown = make()
    phony = re.search(r"^\.PHONY: (.*)$", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert phony is not None
    for task in set(phony[1].split()) - HIDDEN:
        assert re.search(rf"^make {task} +\S", shown, re.MULTILINE), task


@pytest.mark.parametrize(
    "prompt", ["a red circle", "it's", 'a "red" circle', "$HOME $(shell id) `id`", "a; b # c \\ d"]
)
def test_make_demo_passes_the_sentence_on_as_it_is(prompt):
    recipe = ["-o", "build/export.stamp", "REELSERVE=printf '<%s>' ", f"PROMPT={prompt}"]
    assert make("--silent", *recipe, "demo").startswith(f"<demo><{prompt}><--model-repository>")


def test_make_says_which_python_it_needs_when_it_is_too_old(tmp_path):
    old = tmp_path / "python"
    old.write_text(
        '#!/bin/sh\nexec python3 -c "import sys; sys.version_info = (3, 8, 1); '
        'sys.version = \'3.8.1\'; exec(sys.argv[1])" "$2"\n'
    )
    old.chmod(0o755)
    done = subprocess.run(
        ["make", f"PYTHON={old}", f"VENV={tmp_path / 'venv'}", f"{tmp_path / 'venv'}/bin/python"],
        cwd=ROOT, capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert done.returncode != 0
    assert "needs Python 3.10, 3.11 or 3.12" in done.stderr
    assert "is 3.8.1" in done.stderr
