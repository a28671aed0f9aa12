"""Servers in PID namespaces of their own that share one `/dev/shm`, as containers may."""

import time
from pathlib import Path

import psutil
import pytest

from reelserve.server.launch.run_folder import SHARED_MEMORY, start_folder
from reelserve.server.launch.stage_processes import has_ended
from tests.server.grpc_requests import generate
from tests.server.launch.containers import container, needs_namespaces
from tests.server.launch.test_launcher import abandoned, shared_memory
from tests.server.launch.test_serving import wait_until
from tests.server.test_streaming import metrics

pytestmark = needs_namespaces
KILLED_AFTER_S = (0.3, 1.0, 1.7, 2.4)
"""Moments of a start: before there is a folder, while the stages load, when it is ready."""


def serve(repository: Path, log: Path) -> list[str]:
    return [
        *("-m", "reelserve.server", "--model-repository", str(repository)),
        *("--grpc-port", "0", "--http-port", "0", "--metrics-port", "0"),
        *("--log-file", str(log)),
    ]


@pytest.mark.server
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


def test_serve_as_process_1_waits_for_processes_whose_parents_have_died(tiny_repository, tmp_path):
    triton, made = tmp_path / "tritonserver", tmp_path / "made"
    # The shells between end at once, and so do their children later.
    orphans = "for number in 1 2 3 4 5; do sh -c 'sleep 0.1 & sleep 0.2 &'; done"
    triton.write_text(f"#!/bin/sh\n{orphans}\nsleep 0.5; : > {made}\nexec sleep 60\n")
    triton.chmod(0o755)
    native = f"--tritonserver={triton}"
    with container([*serve(tiny_repository, tmp_path / "log"), native]) as server:
        wait_until(made.exists)
        wait_until(lambda: not zombies(server.pid))


def zombies(ancestor: int) -> list[int]:
    processes = psutil.Process(ancestor).children(recursive=True)
    return [process.pid for process in processes if has_ended(process.pid)]
