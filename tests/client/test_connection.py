"""Addresses, TLS and headers, against servers that speak TLS in this process."""

from __future__ import annotations

import asyncio
from concurrent import futures
from pathlib import Path

import grpc
import pytest
from tritonclient.grpc import service_pb2_grpc

from reelserve.client import (
    AccessDeniedError,
    AsyncClient,
    Client,
    InvalidArgumentError,
    NoServerError,
    TlsOptions,
    cli,
)
from reelserve.client._channel import connection, system_roots
from tests.certificates import make_certificates
from tests.client.conftest import MP4, FakeTriton


@pytest.mark.parametrize(
    ("url", "target", "tls"),
    [
        ("localhost:8001", "localhost:8001", False),
        ("[::1]:8001", "[::1]:8001", False),
        ("grpc://a-b.example:1/", "a-b.example:1", False),
        ("http://10.0.0.1:65535", "10.0.0.1:65535", False),
        ("grpcs://clips.example:8001", "clips.example:8001", True),
        ("HTTPS://clips.example", "clips.example:443", True),
        ("https://[2001:db8::1]/", "[2001:db8::1]:443", True),
    ],
)
def test_connection_reads_an_address(url, target, tls):
    read = connection(url)
    assert [one.target for one in read.addresses.listed] == [target]
    assert (read.tls is not None) == tls


@pytest.mark.parametrize(
    ("url", "words"),
    [
        (None, "url is None; it must be host:port"),
        (8001, "url is 8001"),
        ("", "url is ''"),
        ("localhost", "its port must be a number from 1 to 65535"),
        ("localhost:", "its port"),
        ("localhost:grpc", "its port"),
        ("localhost:0", "its port"),
        ("localhost:65536", "its port"),
        ("localhost:٨٠٠١", "its port"),
        ("localhost:8001/clips", "its port"),
        ("https://clips.example/clips", "url is 'https://clips.example/clips'"),
        (":8001", "url is ':8001'"),
        ("x" * 254 + ":8001", "url is 'xxx"),
        ("::1:8001", "url is '::1:8001'"),
        ("[::1:8001", "url is"),
        ("[::g]:8001", "url is"),
        (" localhost:8001", "url is ' localhost:8001'"),
        ("a,b:8001", "url holds 'a'; its port"),
        ("ftp://localhost:8001", "url has the scheme 'ftp'; it must be one of grpc://, http://, "),
        ("unix:///run/clips", "url has the scheme 'unix'"),
        ("grpcs://", "url is 'grpcs://'"),
    ],
)
@pytest.mark.parametrize("kind", [Client, AsyncClient])
def test_client_raises_when_the_url_is_wrong(kind, url, words):
    with pytest.raises(InvalidArgumentError) as caught:
        kind(url)
    assert words in str(caught.value)


def test_client_keeps_a_password_out_of_its_error():
    with pytest.raises(InvalidArgumentError, match="user or a password") as caught:
        Client("https://me:s3cret@clips.example")
    assert "s3cret" not in str(caught.value)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"headers": {"a b": "c"}}, "headers holds the name 'a b'"),
        ({"headers": {"grpc-timeout": "1S"}}, "'grpc-timeout'"),
        ({"headers": {"key-bin": "1"}}, "'key-bin'"),
        ({"headers": {1: "c"}}, "the name 1"),
        ({"headers": {"team": "line\nbreak"}}, "headers['team'] has a value"),
        ({"headers": {"team": 5}}, "headers['team'] has a value"),
        ({"headers": ["team"]}, "headers must be a dictionary"),
        ({"api_key": ""}, "api_key must be visible ASCII"),
        ({"api_key": "two words"}, "api_key must be visible ASCII"),
        ({"api_key": 5}, "api_key must be visible ASCII"),
        ({"api_key": "k", "headers": {"Authorization": "Basic x"}}, "it must be one of them"),
        ({"tls": True}, "tls is True; it must be a TlsOptions"),
        ({"url": "grpc://localhost:1", "tls": TlsOptions()}, "it must begin with grpcs://"),
        ({"url": "10.0.0.1:1", "api_key": "k"}, "api_key would be sent in plain text to 10.0.0.1"),
        ({"url": "http://localhost.evil:1", "api_key": "k"}, "api_key would be sent in plain"),
        ({"model": ""}, "model is ''"),
        ({"model": None}, "model is None"),
    ],
)
def test_client_raises_when_a_setting_is_wrong(settings, words):
    with pytest.raises(InvalidArgumentError) as caught:
        Client(**settings)
    assert words in str(caught.value)
    assert "Basic x" not in str(caught.value)


@pytest.mark.parametrize("url", ["localhost:1", "127.8.0.1:1", "[::1]:1", "grpcs://10.0.0.1:1"])
def test_client_takes_an_api_key_within_this_machine_and_over_tls(url):
    client = Client(url, api_key="s3cret", headers={"x-team": "s3cret"})
    assert "s3cret" not in repr(client) + repr(client._connection)
    assert "'authorization': '***'" in repr(client)
    client.close()


def test_every_call_carries_the_headers(fake_triton):
    with Client(fake_triton.url, headers={"X-Team": "films"}, api_key="s3cret") as client:
        client.generate("a")
        seen = [dict(fake_triton.metadata)]
        list(client.stream("a"))
        seen.append(dict(fake_triton.metadata))
        client.statistics()
        seen.append(dict(fake_triton.metadata))
    for metadata in seen:
        assert (metadata["x-team"], metadata["authorization"]) == ("films", "Bearer s3cret")


def test_client_raises_access_denied_when_the_key_is_refused(fake_triton):
    fake_triton.status, fake_triton.details = grpc.StatusCode.UNAUTHENTICATED, "unknown key"
    with Client(fake_triton.url, api_key="k") as client, pytest.raises(AccessDeniedError):
        client.generate("a")


@pytest.fixture(scope="module")
def certificates(tmp_path_factory) -> Path:
    """A folder with an authority, a server's certificate for `clips.example`, and a client's."""
    return make_certificates(tmp_path_factory.mktemp("certificates"))


@pytest.fixture(params=[False, True], ids=["tls", "mutual"])
def tls_triton(request, certificates):
    """A fake behind TLS, and the options that reach it."""
    fake, mutual = FakeTriton(), request.param
    server = grpc.server(futures.ThreadPoolExecutor(4))
    service_pb2_grpc.add_GRPCInferenceServiceServicer_to_server(fake, server)
    read = {file.name: file.read_bytes() for file in certificates.iterdir()}
    credentials = grpc.ssl_server_credentials(
        [(read["server.key"], read["server.pem"])], read["authority.pem"], mutual
    )
    fake.url = f"127.0.0.1:{server.add_secure_port('127.0.0.1:0', credentials)}"
    server.start()
    own = {"cert_file": certificates / "client.pem", "key_file": certificates / "client.key"}
    yield (
        fake,
        {
            "ca_file": certificates / "authority.pem",
            "server_name": "clips.example",
            **(own if mutual else {}),
        },
    )
    server.stop(grace=None).wait()


@pytest.mark.parametrize("scheme", ["", "grpcs://", "https://"])
def test_generate_and_stream_draw_over_tls(tls_triton, scheme):
    fake, options = tls_triton
    with Client(scheme + fake.url, tls=TlsOptions(**options), api_key="k") as client:
        assert client.is_ready()
        assert client.generate("a").mp4 == MP4
        assert list(client.stream("a"))[-1].video.mp4 == MP4
    assert fake.metadata["authorization"] == "Bearer k"


def test_async_client_draws_over_tls(tls_triton):
    fake, options = tls_triton

    async def draw() -> bytes:
        async with AsyncClient(fake.url, tls=TlsOptions(**options)) as client:
            return (await client.generate("a")).mp4

    assert asyncio.run(draw()) == MP4


def test_command_draws_over_tls(tls_triton, tmp_path, monkeypatch):
    fake, options = tls_triton
    monkeypatch.setenv("REELSERVE_API_KEY", "k")
    monkeypatch.setenv("REELSERVE_CA_FILE", str(options["ca_file"]))
    files = ("cert_file", "key_file", "server_name")
    given = {f"--{name.replace('_', '-')}": str(options[name]) for name in files if name in options}
    target = tmp_path / "clip.mp4"
    call = ["generate", "a", "-o", str(target), "--server", f"grpcs://{fake.url}"]
    assert cli.main([*call, *(word for pair in given.items() for word in pair)]) == cli.OK
    assert target.read_bytes() == MP4
    assert fake.metadata["authorization"] == "Bearer k"


@pytest.mark.parametrize("wrong", ["plain text", "unknown authority", "another name"])
def test_generate_raises_no_server_when_tls_does_not_fit(tls_triton, wrong):
    fake, options = tls_triton
    if wrong == "plain text":
        client = Client(fake.url)
    elif wrong == "unknown authority":
        client = Client(f"grpcs://{fake.url}")
    else:
        client = Client(fake.url, tls=TlsOptions(**{**options, "server_name": "other.example"}))
    with client, pytest.raises(NoServerError, match="TLS"):
        client.generate("a", timeout_s=10)


@pytest.mark.parametrize(
    ("files", "words"),
    [
        ({"ca_file": "missing.pem"}, "missing.pem', which cannot be read: No such file"),
        ({"ca_file": "."}, "which cannot be read: Is a directory"),
        ({"ca_file": "broken.pem"}, "broken.pem', which cannot be used: "),
        ({"cert_file": "client.pem"}, "key_file is missing; cert_file needs it"),
        ({"key_file": "client.key"}, "cert_file is missing; key_file needs it"),
        ({"cert_file": "client.pem", "key_file": "server.key"}, "cannot be used with its key_file"),
        ({"cert_file": "client.pem", "key_file": "locked.key"}, "cannot be used with its key_file"),
        ({"cert_file": "client.pem", "key_file": "none"}, "none', which cannot be read"),
    ],
    ids=lambda value: "" if isinstance(value, str) else "-".join(value.values()),
)
def test_tls_options_raise_when_a_file_cannot_be_used(certificates, files, words):
    with pytest.raises(InvalidArgumentError) as caught:
        TlsOptions(**{name: certificates / file for name, file in files.items()})
    assert words in str(caught.value)


def test_tls_options_raise_when_the_server_name_is_none():
    with pytest.raises(InvalidArgumentError, match="server_name is 'a b'"):
        TlsOptions(server_name="a b")


def test_system_roots_are_certificates_where_the_system_has_some():
    roots = system_roots()
    assert roots is None or b"BEGIN CERTIFICATE" in roots


@pytest.mark.parametrize("name", ["ca_file", "cert_file", "key_file"])
@pytest.mark.parametrize(
    ("value", "words"),
    [(5, "is 5; it must be the path of a PEM file"), ("a\0b", "cannot be read: embedded null")],
)
def test_tls_options_raise_when_a_file_is_no_path(name, value, words, tmp_path):
    (tmp_path / "other").write_text("")
    files = dict.fromkeys({name} | ({"cert_file", "key_file"} if name != "ca_file" else set()))
    files = {file: str(tmp_path / "other") for file in files} | {name: value}
    with pytest.raises(InvalidArgumentError, match=f"{name}.*{words}"):
        TlsOptions(**files)
