"""Tiny public checkpoints of random weights, made once, and copies that a test may damage."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from reelserve.tools.tiny_checkpoints import write_tiny_latte, write_tiny_ltx


@pytest.fixture(scope="session")
def tiny_ltx(tmp_path_factory: pytest.TempPathFactory) -> Path:
    pytest.importorskip("diffusers", reason="needs reelserve[families]")
    return write_tiny_ltx(tmp_path_factory.mktemp("ltx") / "tiny")


@pytest.fixture(scope="session")
def tiny_latte(tmp_path_factory: pytest.TempPathFactory) -> Path:
    pytest.importorskip("diffusers", reason="needs reelserve[families]")
    return write_tiny_latte(tmp_path_factory.mktemp("latte") / "tiny")


@pytest.fixture
def own_ltx(tiny_ltx: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(tiny_ltx, tmp_path / "ltx"))


@pytest.fixture
def own_latte(tiny_latte: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(tiny_latte, tmp_path / "latte"))


@pytest.fixture
def change() -> Callable[..., None]:
    """Changes settings of a JSON file; None as a value stays, `drop` names what goes."""

    def changed(path: Path, *drop: str, **settings: Any) -> None:
        content = {**json.loads(path.read_text()), **settings}
        kept = {name: value for name, value in content.items() if name not in drop}
        path.write_text(json.dumps(kept))

    return changed
