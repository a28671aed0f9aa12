from pathlib import Path

import pytest

from reelserve.server.frontend.api_keys import KeyHolder, key_line, new_key
from reelserve.server.frontend.reloaded import DoorError
from reelserve.server.launch.command import run
from reelserve.server.launch.door_options import doors_of
from reelserve.server.launch.tritons import ServeOptions
from tests.certificates import make_certificates


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    return make_certificates(tmp_path_factory.mktemp("certificates"))


def doors(**options):
    return doors_of(ServeOptions(Path("models"), **options))


def test_doors_are_open_when_nothing_is_asked_for():
    opened = doors()
    assert (opened.tls, opened.keys, opened.allow_anonymous) == (None, None, False)
    assert doors(allow_anonymous=True).allow_anonymous


def test_doors_have_what_is_asked_for(files, tmp_path):
    key = new_key()
    (tmp_path / "keys").write_text(key_line(KeyHolder("studio", 3), key))
    pair = {"tls_cert": files / "server.pem", "tls_key": files / "server.key"}

    closed = doors(**pair, api_keys=tmp_path / "keys")
    assert not closed.tls.asks_callers and closed.keys.caller(key).name == "studio"
    assert doors(**pair, tls_client_ca=files / "authority.pem").tls.asks_callers


@pytest.mark.parametrize(
    ("names", "missing"),
    [
        (["tls_cert"], "--tls-key"),
        (["tls_key"], "--tls-cert"),
        (["tls_client_ca"], "--tls-cert"),
        (["tls_cert", "tls_client_ca"], "--tls-key"),
        (["tls_key", "tls_client_ca"], "--tls-cert"),
    ],
)
def test_doors_refuse_when_an_option_lacks_another(files, names, missing):
    with pytest.raises(DoorError) as caught:
        doors(**{name: files / "server.pem" for name in names})
    assert str(caught.value) == f"{missing} is missing; TLS needs --tls-cert and --tls-key"


@pytest.mark.parametrize("check", [[], ["--check"]], ids=["start", "check"])
def test_a_start_says_in_one_line_which_file_it_cannot_use(files, tmp_path, capsys, check):
    """Before it looks at the repository, of which there is none."""
    pair = [f"--tls-cert={files}/server.pem", f"--tls-key={files}/client.key"]
    assert run([f"--model-repository={tmp_path}", *pair, *check]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"--tls-key is {files}/client.key, which does not fit --tls-cert")


def test_a_start_refuses_to_be_open_to_strangers(tiny_repository, capsys):
    ports = [f"--{name}-port=0" for name in ("grpc", "http", "metrics")]
    assert (
        run([f"--model-repository={tiny_repository}", "--host=0.0.0.0", "--log-file=", *ports]) == 1
    )
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("--host is 0.0.0.0, where whoever reaches the port could draw clips: ")
