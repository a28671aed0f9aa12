from __future__ import annotations

import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from PIL import Image

from reelserve.client.cli import FAILURE, INTERRUPTED, OK
from reelserve.tools.bench.process_memory import descendants
from reelserve.tools.demo import command as demo_command


def runs(pid: int) -> bool:
    """Whether a process is there and no zombie."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return False
    return state != "Z"


@pytest.mark.server
def test_demo_leaves_a_clip_its_frames_and_the_seconds_of_every_stage(
    tiny_repository, tmp_path, capsys
):
    arguments = ["a red [circle]", "--model-repository", str(tiny_repository)]
    assert demo_command.run([*arguments, "--output-dir", str(tmp_path), "--seed", "3"]) == OK
    assert (tmp_path / "demo.mp4").read_bytes()[4:8] == b"ftyp"
    with Image.open(tmp_path / "demo.png") as sheet:
        assert sheet.size[0] > 4 * 64
    shown = capsys.readouterr().out
    for stage in ("prompt_processor", "denoiser", "upsampler", "video_encoder", "total"):
        assert stage in shown
    assert "seed 3" in shown


@pytest.mark.server
def test_demo_says_what_was_refused_when_the_request_is_bad(tiny_repository, tmp_path, capsys):
    arguments = ["a", "--model-repository", str(tiny_repository), "--output-dir", str(tmp_path)]
    assert demo_command.run([*arguments, "--steps", "0"]) == FAILURE
    assert "NUM_INFERENCE_STEPS is 0" in capsys.readouterr().err
    assert not (tmp_path / "demo.mp4").exists()


@pytest.mark.server
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_demo_stops_the_server_when_it_is_interrupted(tiny_repository, tmp_path, number):
    command = [sys.executable, "-c", "from reelserve.client.cli import main; exit(main())"]
    arguments = ["demo", "a", "--model-repository", str(tiny_repository), "--output-dir", tmp_path]
    process = subprocess.Popen(
        [*command, *arguments, "--steps", "50", "--num-frames", "64"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert "starting" in process.stdout.readline()
    deadline = time.monotonic() + 30
    while not (started := descendants(process.pid)) and time.monotonic() < deadline:
        time.sleep(0.05)
    process.send_signal(number)
    _, shown = process.communicate(timeout=60)
    assert process.returncode == INTERRUPTED
    assert shown == "interrupted\n"
    assert started
    assert not any(runs(pid) for pid in started)


def test_demo_says_so_when_there_is_no_model_repository(tmp_path, capsys):
    arguments = ["a", "--model-repository", str(tmp_path), "--output-dir", str(tmp_path)]
    assert demo_command.run(arguments) == FAILURE
    assert "model repository" in capsys.readouterr().err
