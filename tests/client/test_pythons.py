"""The base package draws clips on every Python and NumPy that it promises to run on."""

from __future__ import annotations

import hashlib
import json
import subprocess
from pathlib import Path

import pytest

from reelserve import __version__
from reelserve.client import Client
from tests.client.python_environments import CannotBeHadError, Environment, clean_environment

NUMPY_1, NUMPY_2 = ("numpy>=1.26,<2",), ("numpy>=2",)
LOWEST = ("numpy==1.26.0", "tritonclient[grpc]==2.50.0", "rich==13.0.0")
ENVIRONMENTS = [
    Environment("3.10", "lowest", LOWEST),
    Environment("3.11", "numpy1", NUMPY_1),
    Environment("3.12", "numpy2", NUMPY_2),
    Environment("3.13", "numpy2", NUMPY_2),
    Environment("3.14", "numpy2", NUMPY_2),
]
PROGRAM = """
import asyncio, hashlib, json, sys
import numpy
from reelserve.client import AsyncClient, Client, MissingExtraError

url = sys.argv[1]
client = AsyncClient(url)

async def draw():
    clip = await client.generate("a red circle", seed=3)
    streamed = [event async for event in client.stream("a red circle", seed=3)]
    return clip.mp4, streamed[-1].video.mp4

with Client(url) as blocking:
    clip = blocking.generate("a red circle", seed=numpy.int64(3))
    events = list(blocking.stream("a red circle", seed=3))
    checkpoint = blocking.capabilities().checkpoint
    ready = blocking.is_ready() and "denoiser" in blocking.statistics()
clips = [clip.mp4, events[-1].video.mp4, *asyncio.run(draw()), *asyncio.run(draw())]
try:
    clip.frames()
except MissingExtraError as error:
    refused = str(error)
print(json.dumps({
    "clips": sorted({hashlib.sha256(mp4).hexdigest() for mp4 in clips}),
    "kinds": sorted({event.kind for event in events}),
    "ready": ready,
    "checkpoint": checkpoint,
    "refused": refused,
    "player": clip._repr_mimebundle_()["text/html"][:15],
    "saved": len(clip.save("clip.mp4").read_bytes()) == len(clip.mp4),
    "python": "%d.%d" % sys.version_info[:2],
    "numpy": numpy.__version__,
}))
"""


@pytest.fixture(scope="module")
def reference(tiny_server) -> bytes:
    """The clip that every environment must get."""
    with Client(tiny_server.grpc_url) as client:
        return client.generate("a red circle", seed=3).mp4


@pytest.mark.server
@pytest.mark.parametrize("environment", ENVIRONMENTS, ids=lambda e: f"{e.python}-{e.name}")
def test_base_package_draws_clips(environment, tiny_server, reference, tmp_path):
    try:
        programs = environment.made()
    except CannotBeHadError as reason:
        pytest.skip(str(reason))
    url = tiny_server.grpc_url

    told = json.loads(run(tmp_path, programs / "python", "-I", "-c", PROGRAM, url))
    assert told["clips"] == [hashlib.sha256(reference).hexdigest()]
    assert {"stage", "step", "clip"} <= set(told["kinds"])
    assert told["ready"] and told["saved"] and told["checkpoint"] == "tiny"
    assert "pip install 'reelserve[video]'" in told["refused"]
    assert told["player"] == "<video controls"
    assert told["python"] == environment.python
    assert told["numpy"].startswith("2." if environment.requirements == NUMPY_2 else "1.26.")

    version = run(tmp_path, programs / "reelserve", "--version").decode()
    assert version == f"reelserve {__version__}\n"
    arguments = ("generate", "a red circle", "--seed", "3", "-o", "-", "--server", url)
    assert run(tmp_path, programs / "reelserve", *arguments) == reference


def run(folder: Path, *command: str | Path) -> bytes:
    """What a program writes, in an environment that holds nothing of this one."""
    done = subprocess.run(
        [str(word) for word in command],
        cwd=folder,
        env=clean_environment(),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr.decode()
    return done.stdout
