"""Names that are looked up, and the certificates of several servers."""

from __future__ import annotations

import asyncio
import socket
import threading

import grpc
import pytest

from reelserve.client import (
    AsyncClient,
    Client,
    DeadlineExceededError,
    NoServerError,
    TlsOptions,
    _balancer,
)
from reelserve.client._names import Lookup
from tests.certificates import make_certificates, make_server_certificate
from tests.client.conftest import MP4, FakeTriton, serving
from tests.client.test_balancer import SOON_S, counts, wait_until
from tests.client.test_retries import FULL, every_way, generate


@pytest.fixture(autouse=True)
def no_chance(monkeypatch):
    """Of servers with equally many calls the first one is taken."""
    monkeypatch.setattr(_balancer.random, "random", lambda: 0.0)


@pytest.fixture
def names(monkeypatch) -> dict[str, list[str]]:
    """A name to its addresses, as DNS would tell them; looked up at every call."""
    table: dict[str, list[str]] = {}

    def getaddrinfo(host, port, **options):
        if host not in table:
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (ip, port)) for ip in table[host]]

    monkeypatch.setattr("reelserve.client._names.socket.getaddrinfo", getaddrinfo)
    monkeypatch.setattr("reelserve.client._names.LOOK_AGAIN_S", 0.0)
    monkeypatch.setattr("reelserve.client._names.LOOK_SOON_S", 0.0)
    return table


@every_way
def test_every_address_of_a_name_is_a_server(fake_triton, names, draw):
    other, port = FakeTriton(), fake_triton.url.rpartition(":")[2]
    names["pods"] = ["127.0.0.1", "127.0.0.2"]
    with serving(other, f"127.0.0.2:{port}"):
        fake_triton.refusals = [FULL]
        assert draw(f"dns:///pods:{port}") == MP4
    assert counts(fake_triton, other) == [1, 1]


def test_a_name_is_followed_to_other_addresses(fake_triton, names):
    other, port = FakeTriton(), fake_triton.url.rpartition(":")[2]
    names["pods"] = ["127.0.0.1"]
    with serving(other, f"127.0.0.2:{port}"), Client(f"dns:///pods:{port}") as client:
        client.generate("a circle")
        names["pods"] = ["127.0.0.2"]

        def moved() -> bool:
            client.generate("a circle")
            return bool(other.requests)

        wait_until(moved)
        before = len(fake_triton.requests)
        del names["pods"]
        for _ in range(3):
            assert client.generate("a circle").mp4 == MP4
    assert len(fake_triton.requests) == before


@every_way
def test_call_raises_when_a_name_has_no_address(names, draw):
    with pytest.raises(NoServerError, match="dns:///pods:1: the name has no address: Name or"):
        draw("dns:///pods:1")


def test_a_slow_resolver_is_waited_for_no_longer_than_the_call_may_take(monkeypatch):
    released = threading.Event()
    monkeypatch.setattr(Lookup, "_look", lambda self: released.wait(SOON_S))
    with pytest.raises(DeadlineExceededError, match=r"within 0\.3 s"):
        generate("dns:///pods:1", timeout_s=0.3)
    released.set()


@pytest.fixture(scope="module")
def certificates(tmp_path_factory):
    folder = make_certificates(tmp_path_factory.mktemp("certificates"))
    make_server_certificate(folder, "local", name="localhost")
    return folder


def credentials(certificates, name: str):
    read = [(certificates / f"{name}.{kind}").read_bytes() for kind in ("key", "pem")]
    return grpc.ssl_server_credentials([tuple(read)])


def draw_over(tls: TlsOptions, url: list[str], asynchronous: bool) -> bytes:
    async def draw() -> bytes:
        async with AsyncClient(url, tls=tls) as client:
            return (await client.generate("a circle")).mp4

    if asynchronous:
        return asyncio.run(draw())
    with Client(url, tls=tls) as client:
        return client.generate("a circle").mp4


@pytest.mark.parametrize("asynchronous", [False, True])
def test_each_server_of_a_list_must_have_a_certificate_for_its_own_name(certificates, asynchronous):
    """`clips.example`'s certificate is good for neither of the two names."""
    right, wrong = FakeTriton(), FakeTriton()
    tls = TlsOptions(ca_file=certificates / "authority.pem")
    with (
        serving(right, "localhost:0", credentials(certificates, "local")),
        serving(wrong, "127.0.0.1:0", credentials(certificates, "server")),
    ):
        both = [f"grpcs://{right.url}", f"grpcs://{wrong.url}"]
        assert draw_over(tls, both[::-1], asynchronous) == MP4
        with pytest.raises(NoServerError, match="TLS"):
            draw_over(tls, both[1:], asynchronous)
    assert not wrong.requests


def test_addresses_of_a_name_must_have_a_certificate_for_the_name(certificates, names):
    fake, tls = FakeTriton(), TlsOptions(ca_file=certificates / "authority.pem")
    names["clips.example"] = names["other.example"] = ["127.0.0.1"]
    with serving(fake, "127.0.0.1:0", credentials(certificates, "server")):
        port = fake.url.rpartition(":")[2]
        with Client(f"dns:///clips.example:{port}", tls=tls, api_key="k") as client:
            assert client.generate("a circle").mp4 == MP4
        with (
            Client(f"dns:///other.example:{port}", tls=tls) as client,
            pytest.raises(NoServerError, match="TLS"),
        ):
            client.generate("a circle")
    assert len(fake.requests) == 1
