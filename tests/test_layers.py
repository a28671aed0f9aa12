"""One table of the layers; every import of every module is held against it."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SERVER = ("pipeline", "runtimes", "server")
LAYERS: dict[str, tuple[str, ...]] = {
    "pipeline": (),
    "runtimes": ("pipeline",),
    "kernels": ("pipeline",),
    # They time the denoiser's step too.
    "kernels.benchmarks": ("pipeline", "kernels", "models"),
    "models": ("pipeline", "kernels"),
    "export": ("pipeline", "runtimes", "kernels", "models"),
    "training": ("pipeline", "models"),
    "server": ("pipeline", "runtimes"),
    "server.engines": SERVER,
    "server.stages": SERVER,
    "server.frontend": SERVER,
    "server.launch": (*SERVER, "server.frontend"),
    "server.backends": (*SERVER, "server.engines"),
    "model_repository": (*SERVER, "server.engines", "server.stages"),
    "client": ("pipeline",),
    # It can start the server that it loads.
    "loadtest": ("pipeline", "client", "server", "server.launch"),
    "tools": ("*",),
}
"""Room or room within a room: what it may import besides itself."""
USES_TORCH = (
    *("server/engines/aoti_session.py", "server/engines/tensorrt_session.py"),
    # What both share, and what encodes frames where they are.
    *("server/engines/device_memory.py", "server/engines/torch_tensors.py"),
    "server/stages/device_video.py",
)
"""Files that move tensors of a GPU: all that may import torch below the rooms of torch modules."""
WITHOUT_TORCH = ("pipeline", "client", "loadtest", "server", "model_repository")
ENTRY_POINTS = {"server/__main__.py", "export/__main__.py"}
"""`python -m reelserve.<room>`: they call the room's command."""


def room_of(module: str) -> str:
    """The longest name of the table that a dotted module, without `reelserve.`, begins with."""
    parts = module.split(".")
    names = [".".join(parts[:length]) for length in range(len(parts), 0, -1)]
    return next(name for name in names if name in LAYERS)


def modules() -> Iterator[Path]:
    rooms = {name.split(".")[0] for name in LAYERS}
    for room in sorted(rooms):
        yield from sorted((ROOT / room).rglob("*.py"))


def imported(file: Path, prefix: str = "reelserve.") -> Iterator[str]:
    """Dotted names after a prefix that a file imports, wherever the import stands in it."""
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        if isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{file}: relative imports hide the room"
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        yield from (name.removeprefix(prefix) for name in names if name.startswith(prefix))


def imports_torch(file: Path) -> bool:
    return any(name.split(".")[0] == "torch" for name in imported(file, ""))


def wrong_imports(file: Path) -> list[str]:
    """What a file imports and its room may not."""
    room = room_of(".".join(file.relative_to(ROOT).with_suffix("").parts))
    allowed = (room, *LAYERS[room])
    return [name for name in imported(file) if "*" not in allowed and room_of(name) not in allowed]


@pytest.mark.parametrize("file", list(modules()), ids=lambda file: str(file.relative_to(ROOT)))
def test_imports_only_from_rooms_below(file):
    if str(file.relative_to(ROOT)) not in ENTRY_POINTS:
        assert wrong_imports(file) == []


def test_only_what_moves_tensors_of_a_gpu_imports_torch():
    found = {
        str(file.relative_to(ROOT))
        for file in modules()
        if file.relative_to(ROOT).parts[0] in WITHOUT_TORCH and imports_torch(file)
    }
    assert found == set(USES_TORCH)


def test_every_room_is_in_the_table():
    rooms = {file.parent.name for file in ROOT.glob("*/__init__.py")} - {"tests"}
    assert rooms | {"model_repository"} == {name.split(".")[0] for name in LAYERS}


def test_the_table_has_no_circle():
    below = {name: set(rooms) - {"*"} for name, rooms in LAYERS.items()}
    while ready := {name for name, rooms in below.items() if not rooms & below.keys()}:
        below = {name: rooms - ready for name, rooms in below.items() if name not in ready}
    assert below == {}


@pytest.mark.parametrize(
    ("room", "line"),
    [
        ("pipeline", "from reelserve.server import errors"),
        ("client", "import reelserve.server.launch.tritons"),
        ("server", "def late():\n    from reelserve.client import Client"),
        ("server/frontend", "from reelserve.server.stages import video"),
        ("server/stages", "from reelserve.server.launch import serving"),
    ],
)
def test_wrong_import_is_found(room, line, tmp_path, monkeypatch):
    monkeypatch.setattr("tests.test_layers.ROOT", tmp_path)
    file = tmp_path / room / "module.py"
    file.parent.mkdir(parents=True)
    file.write_text(line)
    assert wrong_imports(file) != []
