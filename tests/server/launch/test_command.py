import json
import sys
from dataclasses import fields, replace
from pathlib import Path

import pytest

from reelserve.server.launch.command import parse_options, run
from reelserve.server.launch.shared_memory import shared_memory_need
from reelserve.server.launch.tritons import ServeOptions

CHANGED = {
    **{"model_repository": Path("my models"), "host": "::1", "gpus": ("0", "GPU-a1")},
    **{"grpc_port": 1, "http_port": 2, "metrics_port": 3},
    **{"tritonserver": Path(sys.executable), "log_file": Path("a log"), "verify": True},
    **{name: Path(name) for name in ("tls_cert", "tls_key", "tls_client_ca", "api_keys")},
    **{
        "allow_anonymous": True,
        "single_user": True,
        "log_prompts": True,
        "log_format": "json",
        "otlp_endpoint": "https://collector:4317",
        "ready_timeout_s": 0.5,
        "drain_timeout_s": 7.25,
        "hang_timeout_s": 2.0,
    },
    **{"keepalive_s": 5.5, "max_connection_age_s": 600.0},
    "extra_arguments": ("--log-verbose=1", "--trace-config=a,b"),
}
"""Another value than the usual one for every field."""


def test_parse_options_use_the_usual_ports_when_not_told():
    options, ready_fd, check = parse_options([])

    assert (options.grpc_port, options.http_port, options.metrics_port) == (8001, 8000, 8002)
    assert options.host == "127.0.0.1" and options.tritonserver is None
    assert (options.gpus, options.extra_arguments, ready_fd, check) == ((), (), None, False)
    limits = (options.ready_timeout_s, options.drain_timeout_s, options.hang_timeout_s)
    assert limits == (120, 300, 30)


@pytest.mark.parametrize(
    "options",
    [ServeOptions(Path("models")), ServeOptions(**CHANGED)],
    ids=["defaults", "everything"],
)
def test_to_args_are_read_as_the_same_options(options):
    assert parse_options(options.to_args()) == (options, None, False)


@pytest.mark.parametrize("field", fields(ServeOptions), ids=lambda field: field.name)
def test_to_args_tell_every_field(field):
    changed = replace(ServeOptions(Path("models")), **{field.name: CHANGED[field.name]})
    assert parse_options(changed.to_args()) == (changed, None, False)


@pytest.mark.parametrize("port", ["65536", "-1", "x"])
def test_parse_options_refuse_when_a_port_is_out_of_range(port, capsys):
    with pytest.raises(SystemExit):
        parse_options([f"--grpc-port={port}"])

    assert f"port is {port}; the limits are 0 to 65535" in capsys.readouterr().err


@pytest.mark.parametrize("gpus", ["", "0,", "0,,1", "0,0"])
def test_parse_options_refuse_gpus_that_are_no_list(gpus, capsys):
    with pytest.raises(SystemExit):
        parse_options([f"--gpus={gpus}"])

    assert f"{gpus!r} is no list of different GPUs, as in 0,1" in capsys.readouterr().err


@pytest.mark.parametrize("seconds", ["0", "-1", "inf", "nan", "soon", ""])
@pytest.mark.parametrize("flag", ["ready", "drain", "hang"])
def test_parse_options_refuse_seconds_that_are_none(flag, seconds, capsys):
    with pytest.raises(SystemExit):
        parse_options([f"--{flag}-timeout={seconds}"])

    assert f"{seconds} is no number of seconds above 0" in capsys.readouterr().err


@pytest.mark.parametrize("seconds", ["0.5", "1000001", "-1", "nan", "soon"])
@pytest.mark.parametrize("flag", ["keepalive", "max-connection-age"])
def test_parse_options_refuse_intervals_out_of_range(flag, seconds, capsys):
    with pytest.raises(SystemExit):
        parse_options([f"--{flag}={seconds}"])

    words = capsys.readouterr().err
    assert f"argument --{flag}: {seconds} is " in words


def test_parse_options_find_a_binary_on_the_path(tmp_path, monkeypatch):
    binary = tmp_path / "tritonserver"
    binary.write_text("#!/bin/sh\n")
    binary.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))

    assert parse_options(["--tritonserver", "tritonserver"])[0].tritonserver == binary


def test_parse_options_refuse_when_the_binary_is_not_on_the_path(capsys):
    with pytest.raises(SystemExit):
        parse_options(["--tritonserver", "no-such-server"])

    assert "no-such-server is no executable on PATH" in capsys.readouterr().err


def test_run_says_what_is_wrong_when_the_server_cannot_start(tmp_path, capsys):
    assert run(["--model-repository", str(tmp_path)]) == 1
    assert "is no model repository" in capsys.readouterr().err


def test_check_prints_what_the_repository_needs_and_starts_nothing(tiny_repository, capsys):
    assert run(["--check", f"--model-repository={tiny_repository}", "--grpc-port=0"]) == 0

    told, needed = json.loads(capsys.readouterr().out), shared_memory_need(tiny_repository)
    assert told["shared_memory_bytes"] == needed.need_bytes
    assert told["shm_size"] == needed.size and told["places"] == 4


def test_check_says_in_one_line_why_a_repository_cannot_be_served(tmp_path, capsys):
    assert run(["--check", f"--model-repository={tmp_path}"]) == 1

    assert capsys.readouterr().err.strip().startswith(f"{tmp_path} is no model repository")
