"""What a service manager is told of a server."""

import os
import signal
import socket

import pytest

from reelserve.server.launch.running_server import Server
from reelserve.server.launch.service_manager import READY, STOPPING, tell
from reelserve.server.launch.tritons import ServeOptions

TIMEOUT_S = 30


@pytest.fixture(params=["path", "abstract"])
def manager(request, tmp_path, monkeypatch):
    name = str(tmp_path / "notify") if request.param == "path" else f"@reelserve-{os.getpid()}"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listening:
        listening.bind(name.replace("@", "\0"))
        listening.settimeout(TIMEOUT_S)
        monkeypatch.setenv("NOTIFY_SOCKET", name)
        yield listening


def test_a_state_is_told(manager):
    tell(READY)
    assert manager.recv(100) == b"READY=1"


@pytest.mark.parametrize("name", ["", "vsock:2:1", "/nowhere/notify"])
def test_a_manager_that_is_not_there_is_told_nothing(monkeypatch, name):
    monkeypatch.setenv("NOTIFY_SOCKET", name)
    tell(READY)


@pytest.mark.server
@pytest.mark.parametrize("manager", ["path"], indirect=True)
def test_server_tells_that_it_is_ready_and_that_it_ends(tiny_repository, manager):
    with Server(ServeOptions(tiny_repository)) as server:
        assert manager.recv(100).decode() == READY
        os.kill(server.pid, signal.SIGTERM)
        assert manager.recv(100).decode() == STOPPING
