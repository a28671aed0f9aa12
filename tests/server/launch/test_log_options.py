"""Where log and traces go, as the command line says it."""

import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from reelserve.server.launch.command import parse_options, run
from reelserve.server.launch.log_options import TracingError, tracing_of
from reelserve.server.launch.tritons import ServeOptions

REPOSITORY = Path("models")


@pytest.mark.parametrize(
    ("terminal", "file"), [(True, "build/triton.log"), (False, "/dev/stdout")], ids=str
)
def test_the_usual_log_is_a_file_only_where_a_person_looks_on(monkeypatch, terminal, file):
    monkeypatch.setattr(sys.stdout, "isatty", lambda: terminal)
    assert parse_options([])[0].log_file == Path(file)


@pytest.mark.parametrize(("given", "file"), [("-", Path("/dev/stdout")), ("", None)])
def test_the_log_file_may_be_standard_output_or_none(given, file):
    options, _, _ = parse_options([f"--log-file={given}"])
    assert (options.log_file, options.log_format, options.log_prompts) == (file, "text", False)
    assert options.otlp_endpoint is None


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--log-format=xml"], "invalid choice: 'xml'"),
        (["--otlp-endpoint=localhost"], "'localhost' must be http://HOST:4317"),
        (["--otlp-endpoint=http://h:4318/v1/traces"], "OTLP over HTTP is not spoken"),
    ],
)
def test_what_cannot_be_is_refused_with_what_can(arguments, words, capsys):
    with pytest.raises(SystemExit):
        parse_options(arguments)
    assert words in " ".join(capsys.readouterr().err.split())


def test_traces_without_the_library_are_refused_with_the_extra_that_brings_it(monkeypatch):
    monkeypatch.delitem(sys.modules, "reelserve.server.frontend.tracing", raising=False)
    for name in [name for name in sys.modules if name.partition(".")[0] == "opentelemetry"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "opentelemetry", None)
    options = ServeOptions(REPOSITORY, otlp_endpoint="http://localhost:4317")
    with pytest.raises(TracingError, match=r"the extra `tracing` .*'reelserve\[tracing\]'"):
        tracing_of(options, SimpleNamespace())


def test_a_variable_of_the_environment_that_is_wrong_is_refused(monkeypatch):
    pytest.importorskip("opentelemetry.exporter.otlp.proto.grpc")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_TIMEOUT", "soon")
    options = ServeOptions(REPOSITORY, otlp_endpoint="http://localhost:4317")
    with pytest.raises(TracingError, match=r"environment is wrong: .*soon"):
        tracing_of(options, SimpleNamespace())


def test_a_log_that_cannot_be_written_ends_the_start_in_one_line(tmp_path, capsys):
    assert run([f"--model-repository={tmp_path}", "--log-file=/dev/null/log"]) == 1
    error = capsys.readouterr().err.strip()
    assert error.startswith("the log cannot be written to /dev/null/log: ") and "\n" not in error
