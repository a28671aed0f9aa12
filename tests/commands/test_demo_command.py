from __future__ import annotations

import pytest
from PIL import Image

from reelserve.client.cli import FAILURE, OK
from reelserve.commands import demo_command


@pytest.mark.server
def test_demo_leaves_a_clip_its_frames_and_the_seconds_of_every_stage(
    tiny_repository, tmp_path, capsys
):
    arguments = ["a red [circle]", "--model-repository", str(tiny_repository)]
    assert demo_command.run([*arguments, "--output-dir", str(tmp_path), "--seed", "3"]) == OK
    assert (tmp_path / "demo.mp4").read_bytes()[4:8] == b"ftyp"
    assert Image.open(tmp_path / "demo.png").size[0] > 4 * 64
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


def test_demo_says_so_when_there_is_no_model_repository(tmp_path, capsys):
    arguments = ["a", "--model-repository", str(tmp_path), "--output-dir", str(tmp_path)]
    assert demo_command.run(arguments) == FAILURE
    assert "model repository" in capsys.readouterr().err
