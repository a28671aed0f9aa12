"""`reelserve generate`: where sentences come from, where clips go, how the server is reached."""

from __future__ import annotations

import io
import json
import os
import signal
import stat
import subprocess
import sys
import threading
import time

import grpc
import pytest

from reelserve.client import cli
from reelserve.client import generate_command as command
from tests.client.conftest import MP4
from tests.client.test_cli import REELSERVE


@pytest.fixture
def generate(fake_triton, tmp_path, monkeypatch):
    """Runs the command against the fake, in an empty folder; gives its exit status."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("REELSERVE_SERVER", fake_triton.url)

    def run(*arguments: str) -> int:
        try:
            return cli.main(["generate", *arguments])
        except SystemExit as stopped:
            return int(stopped.code)

    return run


def stdin(monkeypatch, content: bytes) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(content)))


def prompts(fake) -> list[str]:
    return [fake.received(index)["PROMPT"].decode() for index in range(len(fake.requests))]


@pytest.mark.parametrize("arguments", [(), ("-",)], ids=["nothing", "dash"])
def test_generate_reads_a_sentence_from_standard_input(
    generate, fake_triton, monkeypatch, arguments
):
    stdin(monkeypatch, "\ufeffein Kreis ○\r\nim Regen\n".encode())
    assert generate(*arguments) == cli.OK
    assert prompts(fake_triton) == ["ein Kreis ○\r\nim Regen"]


def test_generate_draws_every_line_of_a_file_and_numbers_the_clips(
    generate, fake_triton, tmp_path, capsys
):
    (tmp_path / "list.txt").write_bytes("\ufeffa circle\r\n\r\n  ein Stern ☆ \nc".encode())
    assert generate("--prompts", "list.txt", "-o", "new/clip.mp4", "--seed", "5") == cli.OK
    names = ["clip-001.mp4", "clip-002.mp4", "clip-003.mp4"]
    assert sorted(os.listdir(tmp_path / "new")) == [*names, "clip.jsonl"]
    assert prompts(fake_triton) == ["a circle", "ein Stern ☆", "c"]
    assert [fake_triton.received(n)["SEED"] for n in range(3)] == [5, 5, 5]
    told = [json.loads(line) for line in (tmp_path / "new/clip.jsonl").read_text().splitlines()]
    assert [line["file"] for line in told] == names
    assert [line["prompt"] for line in told] == prompts(fake_triton)
    assert {line["seed"] for line in told} == {7}, "the server's own"
    assert "clip-003.mp4: 10 s of 256×256, seed 7" in capsys.readouterr().out


def test_generate_draws_several_clips_of_a_sentence_with_seeds_of_their_own(
    generate, fake_triton, tmp_path
):
    assert generate("a", "--num-videos", "2", "--seed", "5") == cli.OK
    assert [fake_triton.received(n)["SEED"] for n in range(2)] == [5, 6]
    assert sorted(os.listdir(tmp_path)) == ["out-001.mp4", "out-002.mp4", "out.jsonl"]
    assert generate("a", "--num-videos", "2", "--force") == cli.OK
    assert "SEED" not in fake_triton.received()
    assert len((tmp_path / "out.jsonl").read_text().splitlines()) == 2


def test_generate_numbers_the_clips_of_each_sentence(generate, fake_triton, tmp_path, monkeypatch):
    stdin(monkeypatch, b"a\nb\n")
    assert generate("--prompts", "-", "--num-videos", "2", "--seed", "1") == cli.OK
    asked = [fake_triton.received(n) for n in range(4)]
    assert [(one["PROMPT"], one["SEED"]) for one in asked] == [
        (b"a", 1),
        (b"a", 2),
        (b"b", 1),
        (b"b", 2),
    ]
    assert (tmp_path / "out-004.mp4").exists()


def test_generate_goes_on_after_a_clip_that_failed(generate, fake_triton, tmp_path, capsys):
    (tmp_path / "list.txt").write_text("a\nb\nc\n")
    fake_triton.refusals = ["12 requests are in flight; retry after 9 s"]
    assert generate("--prompts", "list.txt") == cli.FAILURE
    assert sorted(os.listdir(tmp_path)) == ["list.txt", "out-002.mp4", "out-003.mp4", "out.jsonl"]
    shown = capsys.readouterr().err
    assert "out-001.mp4: " in shown and "12 requests are in flight" in shown
    assert "1 of 3 clips failed" in shown


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "list.txt holds no sentence; it must hold one a line"),
        (b"\xef\xbb\xbf \r\n\r\n", "list.txt holds no sentence"),
        (b"a\nb \xff\n", "list.txt holds the byte 0xff in line 2; it must be UTF-8"),
        (None, "--prompts list.txt cannot be read: No such file"),
    ],
    ids=["empty", "blank", "latin-1", "missing"],
)
def test_generate_exits_with_usage_when_the_file_holds_no_sentences(
    generate, fake_triton, tmp_path, capsys, content, words
):
    if content is not None:
        (tmp_path / "list.txt").write_bytes(content)
    assert generate("--prompts", "list.txt") == cli.USAGE
    assert words in capsys.readouterr().err
    assert not fake_triton.requests


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--num-videos", "0"), "0 is not a whole number of at least 1"),
        (("--seed", "-1"), f"SEED is -1; the limits are 0 to {2**63 - 1}"),
        (
            ("--seed", str(2**63 - 1), "--num-videos", "2"),
            f"SEED is {2**63}; the limits are 0 to {2**63 - 1}",
        ),
        (("--prompts", "x"), "it must be one of them"),
        (("--num-videos", "2", "-o", "-"), "takes 1 clip"),
        (("--num-videos", "2", "-o", os.devnull), "takes 1 clip"),
        (("--num-videos", "2", "--preview", "p.png"), "--preview takes the first picture of 1"),
        (("-o", "clip.avi"), "must end with .mp4, .webm, .gif, .png"),
        (("-o", "clip"), "must end with"),
        (("-o", "."), "is a folder"),
        (("-o", "file/clip.mp4"), "file is not a folder"),
        (("-o", "there.mp4"), "there.mp4 exists; --force overwrites it"),
        (("-o", "link.mp4"), "link.mp4 exists; --force overwrites it"),
        (("-o", "locked.mp4", "--force"), "locked.mp4 is read-only"),
        (("-o", "circle.mp4"), "circle.mp4"),
        (("--preview", "there.mp4"), "there.mp4 exists; --force overwrites it"),
        (("--timeout", "inf"), "inf is not a number above 0"),
        (("--retries", "-1"), "-1 is not a whole number of at least 0"),
        (("--server", "ftp://x"), "url has the scheme 'ftp'"),
        (("--ca-file", "none.pem"), "ca_file is 'none.pem', which cannot be read"),
        (("--header", "secret"), "a --header has no colon"),
        (("--api-key-file", "none"), "--api-key-file is none, which cannot be read"),
        (("--server", "10.0.0.1:1", "--api-key-file", "key"), "api_key would be sent in plain"),
        (("--server", "grpc://localhost:1", "--tls"), "it must begin with grpcs://"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
def test_generate_exits_with_usage_before_it_draws(
    generate, fake_triton, tmp_path, capsys, arguments, words
):
    (tmp_path / "there.mp4").write_bytes(b"old")
    (tmp_path / "link.mp4").symlink_to("there.mp4")
    (tmp_path / "circle.mp4").symlink_to("circle.mp4")
    (tmp_path / "file").touch()
    (tmp_path / "key").write_text("s3cret\n")
    (tmp_path / "locked.mp4").touch(mode=0o400)
    assert generate("a", *arguments) == cli.USAGE
    shown = " ".join(capsys.readouterr().err.split())
    assert words in shown
    assert "s3cret" not in shown and "Traceback" not in shown
    assert not fake_triton.requests
    assert (tmp_path / "there.mp4").read_bytes() == b"old"


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write into every folder")
def test_generate_exits_with_usage_when_the_folder_is_read_only(generate, fake_triton, tmp_path):
    (tmp_path / "locked").mkdir(mode=0o500)
    assert generate("a", "-o", "locked/clip.mp4") == cli.USAGE
    assert not fake_triton.requests


def test_generate_needs_pyav_before_it_draws_other_formats(
    generate, fake_triton, monkeypatch, capsys
):
    monkeypatch.setitem(sys.modules, "av", None)
    assert generate("a", "-o", "clip.gif") == cli.USAGE
    assert "pip install 'reelserve[video]'" in capsys.readouterr().err
    assert not fake_triton.requests


@pytest.mark.parametrize("suffix", [".gif", ".webm", ".png"])
def test_generate_saves_what_the_suffix_names(generate, fake_triton, tmp_path, make_mp4, suffix):
    fake_triton.outputs["VIDEO"] = make_mp4(12)
    assert generate("a", "-o", f"clip{suffix}") == cli.OK
    head = (tmp_path / f"clip{suffix}").read_bytes()[:4]
    assert head in (b"GIF8", b"\x1a\x45\xdf\xa3", b"\x89PNG")


def test_generate_overwrites_when_forced_and_keeps_mode_and_link(generate, tmp_path):
    (tmp_path / "real.mp4").write_bytes(b"old")
    (tmp_path / "real.mp4").chmod(0o640)
    (tmp_path / "out.mp4").symlink_to("real.mp4")
    assert generate("a", "--force") == cli.OK
    assert (tmp_path / "out.mp4").is_symlink()
    assert (tmp_path / "real.mp4").read_bytes() == MP4
    assert stat.S_IMODE((tmp_path / "real.mp4").stat().st_mode) == 0o640


def test_generate_writes_a_device_without_force_and_leaves_it_one(generate):
    assert generate("a", "-o", os.devnull) == cli.OK
    assert stat.S_ISCHR(os.stat(os.devnull).st_mode)


def run(fake, *arguments: str, **options) -> subprocess.CompletedProcess[bytes]:
    call = [*REELSERVE, "generate", *arguments, "--server", fake.url]
    return subprocess.run(call, stderr=subprocess.PIPE, timeout=60, **options)


@pytest.mark.parametrize("output", ["-", "/dev/stdout"])
def test_generate_writes_the_clip_and_nothing_else_to_standard_output(fake_triton, output):
    done = run(fake_triton, "a", "-o", output, stdout=subprocess.PIPE)
    assert (done.returncode, done.stdout) == (cli.OK, MP4)
    assert b"seed 7" in done.stderr


def test_generate_fails_in_a_line_when_nobody_reads_standard_output(fake_triton):
    fake_triton.outputs["VIDEO"] = bytes(2**20)
    read, write = os.pipe()
    os.close(read)
    done = run(fake_triton, "a", "-o", "-", stdout=write)
    os.close(write)
    assert done.returncode == cli.FAILURE
    assert b"Broken pipe" in done.stderr and b"Traceback" not in done.stderr
    assert b"Exception ignored" not in done.stderr


def test_generate_says_so_when_standard_output_is_closed(fake_triton, tmp_path):
    shell = f'exec "$@" --server {fake_triton.url} >&-'
    call = ["sh", "-c", shell, "sh", *REELSERVE, "generate", "a", "-o", "-"]
    done = subprocess.run(call, stderr=subprocess.PIPE, timeout=60, cwd=tmp_path)
    assert done.returncode == cli.USAGE
    assert b"standard output must be a file or a program" in done.stderr


def test_generate_asks_for_a_sentence_at_a_terminal(generate, monkeypatch, capsys):
    terminal = io.TextIOWrapper(io.BytesIO())
    monkeypatch.setattr(terminal, "isatty", lambda: True)
    monkeypatch.setattr(sys, "stdin", terminal)
    assert generate() == cli.USAGE
    assert "no sentence is given: PROMPT, --prompts FILE" in capsys.readouterr().err


def test_generate_exits_with_usage_when_standard_input_is_closed(generate, monkeypatch, capsys):
    monkeypatch.setattr(sys, "stdin", None)
    assert generate("-") == cli.USAGE
    assert generate() == cli.USAGE
    assert "standard input is closed" in capsys.readouterr().err


def test_generate_refuses_a_terminal_as_standard_output(generate, fake_triton, monkeypatch):
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    assert generate("a", "-o", "-") == cli.USAGE
    assert not fake_triton.requests


def test_generate_draws_on_when_nobody_reads_its_report(fake_triton, tmp_path):
    read, write = os.pipe()
    os.close(read)
    done = run(fake_triton, "a", "--num-videos", "2", stdout=write, cwd=tmp_path)
    os.close(write)
    assert done.returncode == cli.OK
    assert (tmp_path / "out-002.mp4").read_bytes() == MP4
    assert b"Traceback" not in done.stderr and b"Exception ignored" not in done.stderr


class FromTheSecond(threading.Event):
    """Holds every request but the first."""

    def __init__(self, requests: list[object]) -> None:
        super().__init__()
        self.requests = requests

    def wait(self, timeout: float | None = None) -> bool:
        return len(self.requests) < 2 or super().wait(timeout)


def test_generate_keeps_what_was_drawn_before_ctrl_c(fake_triton, tmp_path):
    (tmp_path / "list.txt").write_text("a\nb\n")
    fake_triton.hold = FromTheSecond(fake_triton.requests)
    call = [*REELSERVE, "generate", "--prompts", "list.txt", "--server", fake_triton.url]
    with subprocess.Popen(
        call, stdout=subprocess.PIPE, stderr=subprocess.PIPE, cwd=tmp_path
    ) as process:
        deadline = time.monotonic() + 30
        while len(fake_triton.requests) < 2 and time.monotonic() < deadline:
            time.sleep(0.02)
        process.send_signal(signal.SIGINT)
        try:
            _, shown = process.communicate(timeout=30)
        finally:
            # A failure must not wait for what hangs.
            process.kill()
    assert process.returncode == cli.INTERRUPTED
    assert b"Traceback" not in shown
    assert (tmp_path / "out-001.mp4").read_bytes() == MP4
    assert not (tmp_path / "out-002.mp4").exists()
    (line,) = (tmp_path / "out.jsonl").read_text().splitlines()
    assert json.loads(line)["seed"] == 7


def test_generate_sends_headers_and_the_key_of_file_and_environment(
    generate, fake_triton, tmp_path, monkeypatch
):
    monkeypatch.setenv("REELSERVE_API_KEY", "from-environment")
    assert generate("a", "--header", "X-Team: films", "--header", "b:2") == cli.OK
    sent = fake_triton.metadata
    assert (sent["x-team"], sent["b"]) == ("films", "2")
    assert sent["authorization"] == "Bearer from-environment"
    (tmp_path / "key").write_text("from-file\n")
    assert generate("a", "--api-key-file", "key", "--force") == cli.OK
    assert fake_triton.metadata["authorization"] == "Bearer from-file"


def test_generate_takes_empty_variables_as_unset(generate, fake_triton, monkeypatch):
    for name in ("CA_FILE", "CERT_FILE", "KEY_FILE", "API_KEY", "SERVER"):
        monkeypatch.setenv(f"REELSERVE_{name}", "")
    assert generate("a", "--server", fake_triton.url) == cli.OK
    assert "authorization" not in fake_triton.metadata
    assert command._parser().parse_args(["a"]).server == "localhost:8001"


def test_generate_takes_files_of_tls_from_the_environment(generate, monkeypatch, capsys):
    monkeypatch.setenv("REELSERVE_CA_FILE", "/no/such.pem")
    assert generate("a") == cli.USAGE
    assert "ca_file is '/no/such.pem'" in capsys.readouterr().err


def test_generate_says_what_failed_when_the_server_refuses(generate, fake_triton, capsys):
    fake_triton.status, fake_triton.details = grpc.StatusCode.UNAUTHENTICATED, "unknown key"
    assert generate("a") == cli.FAILURE
    assert "unknown key" in capsys.readouterr().err


def test_options_of_the_command_cover_those_of_the_client():
    arguments = command._parser().parse_args(["a"])
    assert set(command.request_options(arguments)) == set(command.GenerateOptions.__annotations__)
