"""A whole service behind mutual TLS and API keys, whose files are replaced while it serves."""

import json
import shutil
import ssl
import urllib.request

import pytest

from reelserve.client import (
    AccessDeniedError,
    Client,
    InvalidArgumentError,
    NoServerError,
    TlsOptions,
    UnavailableError,
    cli,
)
from reelserve.server.frontend.api_keys import KeyHolder, key_line, new_key
from reelserve.server.launch.running_server import Server
from reelserve.server.launch.tritons import ServeOptions
from tests.certificates import make_certificates, make_server_certificate
from tests.server.launch.test_serving import wait_until
from tests.server.test_streaming import WATCHED, metrics, wait_until_idle

pytestmark = pytest.mark.server
KEY = new_key()


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = make_certificates(tmp_path_factory.mktemp("doors"))
    make_server_certificate(folder, "next")
    (folder / "api_keys.txt").write_text(key_line(KeyHolder("studio", 1), KEY))
    return folder


@pytest.fixture(scope="module")
def server(tiny_repository, folder):
    doors = {
        "tls_cert": folder / "server.pem",
        "tls_key": folder / "server.key",
        "tls_client_ca": folder / "authority.pem",
        "api_keys": folder / "api_keys.txt",
    }
    with Server(ServeOptions(tiny_repository, host="0.0.0.0", **doors)) as server:
        yield server


@pytest.fixture
def connect(server, folder):
    """Makes clients; what is not said fits."""

    def connected(key=KEY, cert="client"):
        pair = {} if cert is None else {"cert_file": folder / f"{cert}.pem"}
        if cert is not None:
            pair["key_file"] = folder / f"{cert}.key"
        tls = TlsOptions(folder / "authority.pem", **pair, server_name="clips.example")
        return Client(f"grpcs://127.0.0.1:{server.running.grpc_port}", tls=tls, api_key=key)

    return connected


def test_a_clip_is_drawn_for_who_has_certificate_and_key(server, connect, folder, tmp_path):
    with connect() as client:
        assert client.is_ready() and client.generate("a red star").mp4
        assert client.capabilities().limits.num_frames.high
        with pytest.raises(InvalidArgumentError):
            client.generate("a red star", num_frames=7)
    (tmp_path / "key").write_text(f"{KEY}\n")
    files = {"ca": "authority.pem", "cert": "client.pem", "key": "client.key"}
    arguments = [f"--{name}-file={folder / file}" for name, file in files.items()]
    where = f"--server=grpcs://127.0.0.1:{server.running.grpc_port}"
    arguments += [where, "--server-name=clips.example", f"--api-key-file={tmp_path / 'key'}"]
    clip = tmp_path / "clip.mp4"
    assert cli.main(["generate", "a red star", "-o", str(clip), *arguments]) == cli.OK
    assert clip.stat().st_size


@pytest.mark.parametrize("key", [None, new_key()], ids=["no key", "another key"])
def test_nobody_else_draws(connect, key):
    words = "the API key is missing or not known"
    with connect(key) as client, pytest.raises(AccessDeniedError, match=words):
        client.generate("a red star", timeout_s=10)
    with connect(key) as client, pytest.raises(AccessDeniedError, match=words):
        next(client.stream("a red star", timeout_s=10))


def test_nobody_connects_without_a_certificate(connect):
    with connect(cert=None) as client, pytest.raises(NoServerError, match="TLS"):
        client.generate("a red star", timeout_s=10)


def test_a_second_clip_over_the_limit_is_told_when_to_come_back(server, connect):
    with connect() as client, client.stream("a red star", timeout_s=1e6, **WATCHED) as stream:
        next(stream)
        with pytest.raises(
            UnavailableError, match="studio has 1 of at most 1 clips in flight"
        ) as caught:
            client.generate("a red star")
    assert caught.value.retry_after_s >= 1
    wait_until_idle(server)


def test_probes_need_neither(server):
    for path in ("live", "ready"):
        url = f"http://127.0.0.1:{server.running.http_port}/v2/health/{path}"
        with urllib.request.urlopen(url, timeout=10) as reply:
            assert reply.status == 200


def test_files_are_read_again_without_a_restart(server, connect, folder):
    port = server.running.grpc_port
    new = new_key()
    (folder / "api_keys.txt").write_text("nonsense")
    wait_until(lambda: "it has 1 words; it must be NAME LIMIT HASH" in server.messages())
    with connect() as client:
        assert client.generate("a red star").mp4
    (folder / "api_keys.txt").write_text(key_line(KeyHolder("lab", 2), new))
    for suffix in ("pem", "key"):
        shutil.copy(folder / f"next.{suffix}", folder / f"server.{suffix}")
    presented = (folder / "next.pem").read_text().strip()
    wait_until(lambda: ssl.get_server_certificate(("127.0.0.1", port)).strip() == presented)
    wait_until(lambda: f"{folder}/api_keys.txt: read again" in server.messages())

    with connect(new) as client:
        assert client.generate("a red star").mp4
    with connect(KEY) as client, pytest.raises(AccessDeniedError):
        client.generate("a red star", timeout_s=10)


def test_no_log_and_no_metric_holds_a_key(server):
    assert metrics(server)['reelserve_refusals_total{model="text_to_video",reason="key"}'] >= 4
    with urllib.request.urlopen(server.metrics_url, timeout=10) as reply:
        told = reply.read().decode() + server.messages() + json.dumps(server.running.__dict__)
    assert KEY not in told and "rsk_" not in told
