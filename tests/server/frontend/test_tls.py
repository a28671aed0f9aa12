"""TLS of the gRPC port, before Tritons that answer as a test tells them to."""

import asyncio
import shutil
import ssl

import grpc
import pytest
from tritonclient.grpc import service_pb2, service_pb2_grpc

from reelserve.server.frontend import doors
from reelserve.server.frontend.doors import Doors
from reelserve.server.frontend.reloaded import DoorError
from reelserve.server.frontend.tls import ServerTls
from tests.certificates import make_certificates, make_server_certificate
from tests.server.frontend.callers import serving
from tests.server.frontend.fakes import asynchronous, until

NAMED = [("grpc.ssl_target_name_override", "clips.example")]


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    folder = make_certificates(tmp_path_factory.mktemp("certificates"))
    make_server_certificate(folder, "next")
    make_server_certificate(folder, "odd", curve="secp256k1")
    return folder


@pytest.fixture
def folder(made, tmp_path):
    """Files in use, which a test may replace."""
    put(made, "server", tmp_path)
    shutil.copy(made / "authority.pem", tmp_path / "ca.pem")
    return tmp_path


def put(made, name, folder):
    for suffix in ("pem", "key"):
        shutil.copy(made / f"{name}.{suffix}", folder / f"used.{suffix}")


def tls_of(folder, *, mutual=False):
    ca = folder / "ca.pem" if mutual else None
    return ServerTls(folder / "used.pem", folder / "used.key", ca)


async def lives(port, made, client=None, authority="authority"):
    """Whether a server answers on a new connection."""
    read = {name: (made / name).read_bytes() for name in (f"{authority}.pem", "client.key")}
    pair = (None, None) if client is None else (read["client.key"], (made / client).read_bytes())
    credentials = grpc.ssl_channel_credentials(read[f"{authority}.pem"], *pair)
    options = [*NAMED, ("grpc.use_local_subchannel_pool", 1)]
    async with grpc.aio.secure_channel(f"127.0.0.1:{port}", credentials, options) as channel:
        stub = service_pb2_grpc.GRPCInferenceServiceStub(channel)
        try:
            return (await stub.ServerLive(service_pb2.ServerLiveRequest(), timeout=10)).live
        except grpc.aio.AioRpcError as error:
            assert error.code() is grpc.StatusCode.UNAVAILABLE
            return False


async def presented(port):
    return (await asyncio.to_thread(ssl.get_server_certificate, ("127.0.0.1", port))).strip()


@asynchronous
async def test_a_replaced_certificate_is_presented_to_new_connections(
    made, folder, monkeypatch, caplog
):
    monkeypatch.setattr(doors, "LOOK_S", 0.01)
    old, new = ((made / name).read_text().strip() for name in ("server.pem", "next.pem"))
    async with serving(folder, Doors(tls_of(folder))) as caller:
        port = caller.ports.grpc
        credentials = grpc.ssl_channel_credentials((made / "authority.pem").read_bytes())
        async with grpc.aio.secure_channel(f"127.0.0.1:{port}", credentials, NAMED) as before:
            stub = service_pb2_grpc.GRPCInferenceServiceStub(before)
            assert (await stub.ServerLive(service_pb2.ServerLiveRequest())).live
            assert await presented(port) == old

            (folder / "used.pem").write_text("damaged")
            await until(lambda: any("stays in use" in said for said in caplog.messages))
            assert await presented(port) == old
            # One file after the other: between them they do not fit.
            shutil.copy(made / "next.pem", folder / "used.pem")
            await until(lambda: any("does not fit" in said for said in caplog.messages))
            assert await presented(port) == old and await lives(port, made)
            shutil.copy(made / "next.key", folder / "used.key")
            await until(lambda: any("used from now on" in said for said in caplog.messages))

            assert await presented(port) == new and await lives(port, made)
            # A connection goes on as it was made.
            assert (await stub.ServerLive(service_pb2.ServerLiveRequest())).live


@asynchronous
async def test_mutual_tls_lets_in_who_has_a_certificate_of_the_authority(
    made, folder, monkeypatch, caplog
):
    monkeypatch.setattr(doors, "LOOK_S", 0.01)
    async with serving(folder, Doors(tls_of(folder, mutual=True))) as caller:
        port = caller.ports.grpc
        assert await lives(port, made, client="client.pem")
        assert not await lives(port, made)

        shutil.copy(made / "server.pem", folder / "ca.pem")
        await until(lambda: any("used from now on" in said for said in caplog.messages))
        assert not await lives(port, made, client="client.pem")


@asynchronous
async def test_plain_text_and_strange_authorities_do_not_connect(made, folder):
    async with serving(folder, Doors(tls_of(folder))) as caller:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await caller.stub.ServerLive(service_pb2.ServerLiveRequest(), timeout=10)
        assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
        assert not await lives(caller.ports.grpc, made, authority="client")


@pytest.mark.parametrize(
    ("cert", "key", "ca", "words"),
    [
        (
            "none.pem",
            "server.key",
            None,
            "--tls-cert is {}/none.pem, which cannot be read: No such",
        ),
        ("broken.pem", "server.key", None, "--tls-cert is {}/broken.pem, which cannot be used: "),
        ("server.key", "server.key", None, "--tls-cert is {}/server.key, which cannot be used: "),
        ("server.pem", "none", None, "--tls-key is {}/none, which cannot be read: No such file"),
        ("server.pem", "broken.pem", None, "--tls-key is {}/broken.pem, which cannot be used with"),
        ("server.pem", "locked.key", None, "--tls-key is {}/locked.key, which cannot be used with"),
        (
            *("server.pem", "client.key", None),
            "--tls-key is {0}/client.key, which does not fit --tls-cert {0}/server.pem",
        ),
        ("odd.pem", "odd.key", None, "--tls-cert is {}/odd.pem, which gRPC does not take with"),
        (
            "server.pem",
            "server.key",
            "broken.pem",
            "--tls-client-ca is {}/broken.pem, which cannot",
        ),
    ],
)
def test_files_that_cannot_be_used_are_refused_in_one_line(made, cert, key, ca, words):
    with pytest.raises(DoorError) as caught:
        ServerTls(made / cert, made / key, None if ca is None else made / ca)
    assert str(caught.value).startswith(words.format(made)) and "\n" not in str(caught.value)


def test_a_chain_that_ends_in_a_damaged_certificate_is_refused(made, folder):
    chain = (made / "server.pem").read_text() + (made / "authority.pem").read_text()[:200]
    (folder / "used.pem").write_text(f"{chain}\n-----END CERTIFICATE-----\n")
    with pytest.raises(DoorError, match=r"used\.pem, which cannot be used"):
        tls_of(folder)
