from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from importlib import metadata

import grpc
import pytest

from reelserve.client import cli

REELSERVE = (sys.executable, "-c", "from reelserve.client.cli import main; exit(main())")


def reelserve(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*REELSERVE, *arguments], capture_output=True, text=True, timeout=60)


def test_help_lists_every_command_with_what_it_does(capsys):
    assert cli.main(["--help"]) == cli.OK
    shown = capsys.readouterr().out
    for entry in metadata.entry_points(group=cli.COMMAND_GROUP):
        assert entry.name in shown
    assert "Draw videos from sentences" in shown
    assert "not installed" not in shown


def test_main_returns_usage_when_there_is_no_command(capsys):
    assert cli.main([]) == cli.USAGE
    assert "usage: reelserve" in capsys.readouterr().err


def test_main_returns_usage_when_the_command_is_unknown(capsys):
    assert cli.main(["draw"]) == cli.USAGE
    assert "'draw'" in capsys.readouterr().err


def test_main_names_the_extra_when_a_package_is_missing(capsys, monkeypatch):
    entry = metadata.EntryPoint("demo", "reelserve.tools.demo.command:run", cli.COMMAND_GROUP)
    monkeypatch.setattr(metadata, "entry_points", lambda group: (entry,))

    def load(self):
        raise ModuleNotFoundError(name="grpc_health.v1")

    monkeypatch.setattr(metadata.EntryPoint, "load", load)
    assert cli.main(["demo"]) == cli.FAILURE
    # It is not in the extra of the command's own room.
    assert "grpc_health.v1 is not installed; it comes with `pip install 'reelserve[server]'`" in (
        capsys.readouterr().err
    )


def test_main_returns_interrupted_on_ctrl_c(capsys, monkeypatch):
    def interrupt(argv):
        raise KeyboardInterrupt

    monkeypatch.setattr(metadata.EntryPoint, "load", lambda self: interrupt)
    assert cli.main(["generate"]) == cli.INTERRUPTED
    assert "interrupted" in capsys.readouterr().err


def test_generate_writes_the_clip_and_the_seconds_of_every_stage(fake_triton, tmp_path, capsys):
    target = tmp_path / "a b" / "[clip].mp4"
    arguments = ["generate", "a circle", "-o", str(target), "--server", fake_triton.url]
    assert cli.main([*arguments, "--seed", "7", "--steps", "4", "--guidance-scale", "2"]) == cli.OK
    assert target.read_bytes() == fake_triton.outputs["VIDEO"]
    assert fake_triton.received() == {
        "PROMPT": b"a circle",
        "SEED": 7,
        "NUM_INFERENCE_STEPS": 4,
        "GUIDANCE_SCALE": 2.0,
    }
    shown = capsys.readouterr().out
    assert "video_diffusion" in shown
    assert "4.00" in shown
    assert "[clip].mp4" in shown
    assert "seed 7" in shown


def test_generate_says_what_the_server_refused_without_a_trace(fake_triton, tmp_path, capsys):
    fake_triton.status = grpc.StatusCode.INVALID_ARGUMENT
    fake_triton.details = "NUM_FRAMES is 81; it must be a multiple of 8 from [8] to 160"
    target = tmp_path / "clip.mp4"
    arguments = ["generate", "a circle", "-o", str(target), "--server", fake_triton.url]
    assert cli.main(arguments) == cli.FAILURE
    shown = " ".join(capsys.readouterr().err.split())
    assert fake_triton.details in shown
    assert "Traceback" not in shown
    assert not target.exists()


def test_generate_asks_again_where_the_server_is_full(fake_triton, tmp_path):
    fake_triton.refusals = ["12 requests are in flight; retry after 0 s"]
    arguments = ["generate", "a circle", "-o", str(tmp_path / "clip.mp4")]
    assert cli.main([*arguments, "--server", fake_triton.url, "--retries", "1"]) == cli.OK
    assert len(fake_triton.requests) == 2


def test_generate_takes_the_address_from_the_environment(fake_triton, tmp_path, monkeypatch):
    monkeypatch.setenv("REELSERVE_SERVER", fake_triton.url)
    assert cli.main(["generate", "a circle", "-o", str(tmp_path / "clip.mp4")]) == cli.OK


@pytest.mark.parametrize(
    "arguments",
    [[], ["a", "--seed", "x"], ["a", "--no-such-option"], ["a", "-o", "/"]],
    ids=["no-prompt", "seed-text", "unknown", "output-folder"],
)
def test_generate_exits_with_usage_when_arguments_are_wrong(arguments):
    with pytest.raises(SystemExit) as stopped:
        cli.main(["generate", *arguments])
    assert stopped.value.code == cli.USAGE


def test_generate_says_so_when_nothing_listens():
    done = reelserve("generate", "a circle", "--server", "127.0.0.1:9")
    assert done.returncode == cli.FAILURE
    assert "make serve" in done.stderr
    assert "Traceback" not in done.stderr


def test_generate_refuses_bytes_that_are_no_utf8():
    done = reelserve("generate", os.fsdecode(b"a \xff"), "--server", "127.0.0.1:9")
    assert done.returncode == cli.FAILURE
    assert "PROMPT holds" in done.stderr


def test_generate_cancels_the_request_on_ctrl_c(fake_triton, tmp_path):
    fake_triton.hold = threading.Event()
    target = tmp_path / "clip.mp4"
    command = [*REELSERVE, "generate", "a circle", "-o", str(target), "--server", fake_triton.url]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 30
    while not fake_triton.requests and time.monotonic() < deadline:
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    _, shown = process.communicate(timeout=30)
    assert process.returncode == cli.INTERRUPTED
    assert "Traceback" not in shown
    assert fake_triton.cancelled.wait(5)
    assert not target.exists()
