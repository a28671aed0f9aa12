import os
import socket
import subprocess
import sys

import psutil
import pytest

from reelserve.server.frontend.ports import PortError, address, listening_address

HOLDER = """
import socket, time
taken = socket.create_server(("127.0.0.1", 0))
print(taken.getsockname()[1], flush=True)
time.sleep(60)
"""


@pytest.mark.parametrize(
    ("host", "found"), [("127.0.0.1", "127.0.0.1"), ("0.0.0.0", "0.0.0.0"), ("::1", "::1")]
)
def test_listening_address_is_numeric(host, found):
    assert listening_address(host, 0) == found


def test_listening_address_of_a_name_is_one_that_can_be_had():
    assert listening_address("localhost", 0) in ("127.0.0.1", "::1")


def test_listening_address_goes_on_when_the_first_address_cannot_be_had(monkeypatch):
    kind, tcp = socket.SOCK_STREAM, socket.IPPROTO_TCP
    found = [
        (socket.AF_INET6, kind, tcp, "", ("2001:db8::1", 0, 0, 0)),
        (socket.AF_INET, kind, tcp, "", ("127.0.0.1", 0)),
    ]
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: found)

    assert listening_address("both", 0) == "127.0.0.1"


@pytest.mark.parametrize("host", ["no.such.host.invalid", "a..b", "x" * 300, "192.0.2.1"])
def test_listening_address_refuses_what_is_none_of_this_machine(host):
    with pytest.raises(PortError, match=rf"^cannot listen on {host}:1: \S.*$"):
        listening_address(host, 1)


def test_refusal_names_the_process_that_has_the_port():
    with subprocess.Popen(
        [sys.executable, "-c", HOLDER], stdout=subprocess.PIPE, text=True
    ) as holder:
        try:
            port = int(holder.stdout.readline())
            name = psutil.Process(holder.pid).name()
            with pytest.raises(PortError) as caught:
                listening_address("127.0.0.1", port)
        finally:
            holder.kill()

    assert str(caught.value) == (
        f"cannot listen on 127.0.0.1:{port}: Address already in use "
        f"(by {name}, process {holder.pid})"
    )


def test_refusal_says_so_when_the_port_is_this_servers_own():
    with socket.create_server(("127.0.0.1", 0)) as taken:
        with pytest.raises(PortError, match=r"\(by this server itself: its ports must differ\)$"):
            listening_address("127.0.0.1", taken.getsockname()[1])


def test_refusal_names_nobody_when_nobody_is_seen(monkeypatch):
    def denied(kind):
        raise psutil.AccessDenied

    monkeypatch.setattr(psutil, "net_connections", denied)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        with pytest.raises(PortError, match=os.strerror(98) + "$"):
            listening_address("127.0.0.1", taken.getsockname()[1])


def test_address_brackets_ipv6():
    assert address("::1", 8001) == "[::1]:8001"
    assert address("localhost", 8001) == "localhost:8001"
