import pytest

from reelserve.server.serve_command import parse_options, run


def test_parse_options_use_the_usual_ports_when_not_told():
    options = parse_options([])

    assert (options.grpc_port, options.http_port, options.metrics_port) == (8001, 8000, 8002)
    assert options.host == "127.0.0.1" and options.tritonserver is None


def test_parse_options_take_free_ports_when_zero():
    options = parse_options(["--grpc-port", "0", "--http-port", "0", "--metrics-port", "0"])

    assert (options.grpc_port, options.http_port, options.metrics_port) == (None, None, None)


@pytest.mark.parametrize("port", ["65536", "-1", "x"])
def test_parse_options_refuse_when_a_port_is_out_of_range(port, capsys):
    with pytest.raises(SystemExit):
        parse_options([f"--grpc-port={port}"])

    assert f"port is {port}; the limits are 0 to 65535" in capsys.readouterr().err


def test_parse_options_find_a_binary_on_the_path(tmp_path, monkeypatch):
    binary = tmp_path / "tritonserver"
    binary.write_text("#!/bin/sh\n")
    binary.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))

    assert parse_options(["--tritonserver", "tritonserver"]).tritonserver == binary


def test_parse_options_refuse_when_the_binary_is_not_on_the_path(capsys):
    with pytest.raises(SystemExit):
        parse_options(["--tritonserver", "no-such-server"])

    assert "no-such-server is no executable on PATH" in capsys.readouterr().err


def test_run_says_what_is_wrong_when_the_server_cannot_start(tmp_path, capsys):
    assert run(["--model-repository", str(tmp_path)]) == 1
    assert "is no model repository" in capsys.readouterr().err
