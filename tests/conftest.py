import gc
import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from reelserve.runtimes.export_lock import LOCK_FILE
from reelserve.server.launch.running_server import Server
from reelserve.server.launch.tritons import ServeOptions
from tests.distribution import group, slow_first
from tests.server.tiny_repository import REPOSITORY, write_tiny_repository

# A background job ignores SIGINT, and so would every process that the tests start and interrupt.
signal.signal(signal.SIGINT, signal.default_int_handler)
# Compiled kernels of an earlier run are used again; nothing is written outside the project.
BUILD = Path(__file__).parents[1] / "build"
os.environ.setdefault("TORCHINDUCTOR_CACHE_DIR", str(BUILD / "inductor"))
os.environ.setdefault("TRITON_CACHE_DIR", str(BUILD / "triton"))
if "PYTEST_XDIST_WORKER" in os.environ:
    # Workers share the cores. Threads of torch that wait for one another spin, and processes that
    # help its compiler import it once more.
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    os.environ.setdefault("TORCHINDUCTOR_COMPILE_THREADS", "1")


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Groups the tests before xdist reads the groups, which is in this hook too."""
    group(items)
    if hasattr(config, "workerinput"):
        slow_first(items)


def pytest_collection_finish() -> None:
    """Takes what the imports made out of the collector's way: exports collect after each stage."""
    gc.collect()
    gc.freeze()


def pytest_runtest_teardown(item: pytest.Item, nextitem: pytest.Item | None) -> None:
    """The same for what tracing and compiling have left, which later exports would look through."""
    ends = nextitem is None or nextitem.path != item.path
    if ends or item.get_closest_marker("compile"):
        gc.collect()
        gc.freeze()


@pytest.fixture(scope="session")
def tiny_repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The model repository with tiny graphs of random weights."""
    return write_tiny_repository(tmp_path_factory.mktemp("tiny") / "model_repository")


@pytest.fixture(scope="session")
def tiny_server(tiny_repository: Path) -> Iterator[Server]:
    """A running server whose clips take a fraction of a second."""
    with Server(ServeOptions(tiny_repository)) as server:
        yield server


@pytest.fixture(scope="session")
def exported_server() -> Iterator[Server]:
    """A running server over the exported checkpoint."""
    if not (REPOSITORY / LOCK_FILE).exists():
        pytest.skip("model_repository/ is not exported: run `make export`")
    with Server(ServeOptions(REPOSITORY)) as server:
        yield server
