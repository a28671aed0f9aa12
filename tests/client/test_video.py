from __future__ import annotations

import json
import os

import pytest

from reelserve.client import Video, VideoInfo


@pytest.fixture
def make_video(info):
    return lambda mp4=b"mp4": Video(mp4=mp4, info=VideoInfo.from_json(json.dumps(info)))


def test_info_ignores_members_that_a_newer_server_adds(info):
    assert VideoInfo.from_json(json.dumps({**info, "new": 1})).seed == info["seed"]


def test_info_names_what_is_missing(info):
    raw = {name: value for name, value in info.items() if name not in ("seed", "fps")}
    with pytest.raises(ValueError, match="INFO lacks seed, fps"):
        VideoInfo.from_json(json.dumps(raw))


def test_save_makes_the_folder_and_replaces_the_file(tmp_path, make_video):
    target = tmp_path / "new" / "clip.mp4"
    make_video(b"old").save(target)
    assert make_video(b"new").save(str(target)) == target
    assert target.read_bytes() == b"new"
    assert os.listdir(target.parent) == ["clip.mp4"]


def test_save_leaves_nothing_when_it_fails(tmp_path, make_video):
    folder = tmp_path / "clip.mp4"
    folder.mkdir()
    with pytest.raises(OSError):
        make_video().save(folder)
    assert os.listdir(tmp_path) == ["clip.mp4"]


def test_save_gives_the_permissions_that_open_gives(tmp_path, make_video):
    plain = tmp_path / "plain"
    plain.touch()
    saved = make_video().save(tmp_path / "clip.mp4")
    assert saved.stat().st_mode == plain.stat().st_mode


def test_repr_leaves_the_bytes_out(make_video):
    assert "<3 bytes>" in repr(make_video())
