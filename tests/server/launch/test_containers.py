"""Servers in PID namespaces of their own that share one `/dev/shm`, as containers may."""

import time
from pathlib import Path

import pytest

from reelserve.server.launch.run_folder import SHARED_MEMORY, start_folder
from tests.server.grpc_requests import generate
from tests.server.launch.containers import container, needs_namespaces
from tests.server.launch.test_launcher import abandoned, shared_memory
from tests.server.test_streaming import metrics

pytestmark = [pytest.mark.server, needs_namespaces]
KILLED_AFTER_S = (0.3, 1.0, 1.7, 2.4)
"""Moments of a start: before there is a folder, while the stages load, when it is ready."""


def serve(repository: Path, log: Path) -> list[str]:
    return [
        *("-m", "reelserve.server", "--model-repository", str(repository)),
        *("--grpc-port", "0", "--http-port", "0", "--metrics-port", "0"),
        *("--log-file", str(log)),
    ]


def test_starts_that_are_killed_leave_nothing_and_living_servers_lose_nothing(
    tiny_repository, tiny_server, tmp_path
):
    before = abandoned()
    request = {"prompt": "a red star", "seed": 1}
    expected, used = generate(tiny_server, **request)[0], set(shared_memory(tiny_server))
    for after_s in KILLED_AFTER_S:
        with container(serve(tiny_repository, tmp_path / "log")) as server:
            time.sleep(after_s)
            server.kill()
            server.wait()
    assert metrics(tiny_server)["reelserve_requests_in_flight"] == 0

    # What is first when a server starts.
    with start_folder(SHARED_MEMORY) as mine:
        assert abandoned() - {mine.name.removeprefix("reelserve-")} <= before
    assert used <= set(shared_memory(tiny_server))
    assert generate(tiny_server, **request)[0] == expected
