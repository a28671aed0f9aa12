from __future__ import annotations

import base64
import io
import json
import os
import stat
import subprocess
import sys
import threading

import av
import numpy as np
import pytest

from reelserve.client import (
    InternalError,
    InvalidArgumentError,
    MissingExtraError,
    ReelserveError,
    Video,
    VideoInfo,
)
from reelserve.client import _media as media


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


def test_save_keeps_the_mode_of_the_file_that_it_replaces(tmp_path, make_video):
    target = make_video(b"old").save(tmp_path / "clip.mp4")
    target.chmod(0o600)
    make_video(b"new").save(target)
    assert stat.S_IMODE(target.stat().st_mode) == 0o600


@pytest.mark.parametrize("held", [True, False], ids=["file", "dangling"])
def test_save_writes_behind_a_symbolic_link_that_stays(tmp_path, make_video, held):
    target, link = tmp_path / "real" / "clip", tmp_path / "clip.mp4"
    target.parent.mkdir()
    if held:
        target.write_bytes(b"old")
    link.symlink_to("real/clip")
    make_video(b"new").save(link)
    assert link.is_symlink()
    assert target.read_bytes() == b"new"


def test_save_raises_when_links_go_in_a_circle(tmp_path, make_video):
    (tmp_path / "a.mp4").symlink_to("b.mp4")
    (tmp_path / "b.mp4").symlink_to("a.mp4")
    with pytest.raises(OSError):
        make_video().save(tmp_path / "a.mp4")
    assert (tmp_path / "a.mp4").is_symlink()


def test_save_raises_when_the_file_is_read_only(tmp_path, make_video):
    target = make_video(b"old").save(tmp_path / "clip.mp4")
    target.chmod(0o444)
    with pytest.raises(PermissionError, match="read-only"):
        make_video(b"new").save(target)
    assert target.read_bytes() == b"old"


def test_save_writes_through_a_device_that_stays_one(make_video):
    before = os.stat(os.devnull)
    make_video().save(os.devnull)
    assert (os.stat(os.devnull).st_mode, os.stat(os.devnull).st_ino) == (
        before.st_mode,
        before.st_ino,
    )


@pytest.mark.parametrize("name", ["pipe", "pipe.mp4"])
def test_save_writes_through_a_pipe(tmp_path, make_video, name):
    pipe, read = tmp_path / name, []
    os.mkfifo(pipe)
    reader = threading.Thread(target=lambda: read.append(pipe.read_bytes()))
    reader.start()
    make_video(b"new").save(pipe)
    reader.join()
    assert read == [b"new"]
    assert stat.S_ISFIFO(pipe.stat().st_mode)


def test_save_adds_to_the_file_behind_standard_output(tmp_path, info):
    """The shell has opened it, perhaps to append; a new file in its place would be lost."""
    target = tmp_path / "all"
    target.write_bytes(b"before ")
    program = (
        "from reelserve.client import Video, VideoInfo\n"
        "for path in ('/dev/stdout', '/proc/self/fd/1', '/dev/fd/1'):\n"
        f"    Video(b'clip ', VideoInfo(**{info!r})).save(path)\nprint('after')"
    )
    with target.open("ab") as stdout:
        subprocess.run([sys.executable, "-c", program], stdout=stdout, check=True)
    assert target.read_bytes() == b"before clip clip clip after\n"


@pytest.mark.parametrize("name", ["clip", "clip.avi", "clip.mp4.txt", ".mp4"])
def test_save_raises_when_the_suffix_names_no_format(tmp_path, make_video, name):
    with pytest.raises(InvalidArgumentError, match=r"must end with \.mp4, \.webm, \.gif, \.png"):
        make_video().save(tmp_path / name)
    assert os.listdir(tmp_path) == []


def test_frames_are_those_of_the_clip(make_mp4, make_video):
    frames = make_video(make_mp4(12)).frames()
    assert (frames.shape, frames.dtype) == ((12, 32, 32, 3), np.uint8)
    means = frames.reshape(12, -1).mean(axis=1)
    assert np.abs(means - 10 * np.arange(12)).max() <= 3


def test_thumbnail_is_the_frame_half_way(make_mp4, make_video):
    picture = opened(make_video(make_mp4(11)).thumbnail())
    assert picture.shape == (1, 32, 32, 3)
    assert abs(picture.mean() - 50) <= 3


@pytest.mark.parametrize("num_frames", [1, 5, 12, 23])
def test_save_png_shows_twelve_frames_from_first_to_last(
    tmp_path, make_mp4, make_video, num_frames
):
    path = make_video(make_mp4(num_frames)).save(tmp_path / "clip.PNG")
    (sheet,) = opened(path.read_bytes())
    cell, gap = 32 + media.GAP_PX, media.GAP_PX
    assert sheet.shape == (media.ROWS * cell + gap, media.COLUMNS * cell + gap, 3)
    assert (sheet[:gap] == media.WHITE).all()
    greys = [
        int(sheet[row * cell + gap + 16, column * cell + gap + 16, 0])
        for row in range(media.ROWS)
        for column in range(media.COLUMNS)
    ]
    assert greys == sorted(greys)
    assert greys[0] <= 3 and abs(greys[-1] - 10 * (num_frames - 1)) <= 3


@pytest.mark.parametrize("suffix", [".webm", ".gif"])
def test_save_encodes_the_same_frames(tmp_path, make_mp4, make_video, suffix):
    video = make_video(make_mp4(20))
    path = video.save(tmp_path / f"clip{suffix}")
    found = opened(path.read_bytes())
    assert found.shape == (20, 32, 32, 3)
    assert np.abs(found.astype(int) - video.frames()).mean() < 4
    with av.open(str(path)) as container:
        # GIF counts hundredths of a second.
        assert float(container.streams.video[0].average_rate) == pytest.approx(8, rel=0.05)
    if suffix == ".gif":
        assert b"NETSCAPE2.0" in path.read_bytes(), "it repeats"


def test_gif_shows_colours_as_they_are():
    rows, columns = np.mgrid[:64, :64]
    planes = (120 + 2 * rows, 4 * columns, np.full_like(rows, 60))
    frames = np.stack([np.stack(planes, -1)] * 3).astype(np.uint8)
    shown = opened(media.gif(frames, 8))
    assert np.abs(shown.astype(int) - frames).mean() < 6


@pytest.mark.parametrize("mp4", [b"", b"no mp4", b"\x00\x00\x00\x20ftypisom" + bytes(64)])
def test_frames_raises_when_the_clip_cannot_be_decoded(make_video, mp4):
    with pytest.raises(InternalError, match="cannot be decoded"):
        make_video(mp4).frames()


@pytest.mark.parametrize("use", [Video.frames, Video.thumbnail, lambda v: v.save("clip.gif")])
def test_video_names_the_extra_when_pyav_is_missing(make_video, monkeypatch, tmp_path, use):
    monkeypatch.setitem(sys.modules, "av", None)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(MissingExtraError, match=r"pip install 'reelserve\[video\]'") as caught:
        use(make_video())
    assert isinstance(caught.value, ImportError) and isinstance(caught.value, ReelserveError)
    assert make_video().save("clip.mp4").read_bytes() == b"mp4"
    assert os.listdir(tmp_path) == ["clip.mp4"]


def test_notebook_gets_a_player_that_holds_the_clip(make_video):
    shown = make_video(b"\x00mp4")._repr_mimebundle_(include=None, exclude=None)
    source = f'src="data:video/mp4;base64,{base64.b64encode(bytes([0]) + b"mp4").decode()}"'
    assert shown["text/html"].startswith("<video controls") and source in shown["text/html"]
    assert shown["text/plain"] == repr(make_video(b"\x00mp4"))


def test_repr_leaves_the_bytes_out(make_video):
    assert "<3 bytes>" in repr(make_video())


def opened(file: bytes) -> np.ndarray:
    with av.open(io.BytesIO(file)) as container:
        return np.stack([frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)])
