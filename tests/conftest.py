import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from reelserve.runtimes.export_lock import LOCK_FILE
from reelserve.server.launch.running_server import Server
from reelserve.server.launch.tritons import ServeOptions
from tests.server.tiny_repository import REPOSITORY, write_tiny_repository

# A background job ignores SIGINT, and so would every process that the tests start and interrupt.
signal.signal(signal.SIGINT, signal.default_int_handler)


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
