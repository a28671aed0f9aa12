import os
import stat
import threading

import numpy as np
import pytest

from reelserve.server.progress import (
    VARIABLE,
    PreviewLeft,
    ProgressFolder,
    StageEnded,
    Stepped,
)

KEY, OTHER = "0123456789abcdef" * 2, "f" * 32
LATENTS = np.arange(16, dtype=np.float32).reshape(1, 2, 2, 4)
NO_KEYS = ["", "x" * 32, KEY[:-1], KEY + "0", KEY.upper(), KEY + "\n", "../" + KEY, "../" + KEY[3:]]


@pytest.fixture
def progress(tmp_path):
    folder = tmp_path / "progress"
    folder.mkdir()
    return ProgressFolder(folder)


def files(progress):
    return sorted(path.name for path in progress._path.iterdir())


def test_progress_tells_what_has_happened_in_order(progress):
    progress.open_clip(KEY)
    progress.stage_ended(KEY, "text_encoder", 5.5)
    progress.stepped(KEY, 1, 4, 0.0)
    progress.leave_preview(KEY, LATENTS)
    progress.stepped(KEY, 2, 4, 0.0)
    ended, *rest = ProgressFolder(progress._path).read(KEY)

    assert isinstance(ended, StageEnded) and ended.ended > ended.began == 5.5
    assert ended.stage == "text_encoder"
    assert rest == [Stepped(1, 4), PreviewLeft(), Stepped(2, 4)]
    assert progress.read(OTHER) == []


def test_progress_is_for_its_user_alone(progress):
    progress.open_clip(KEY)
    progress.cancel(KEY)
    modes = {stat.S_IMODE(path.stat().st_mode) for path in progress._path.iterdir()}
    assert modes == {0o600}


def test_preview_is_given_once(progress):
    progress.open_clip(KEY)
    progress.leave_preview(KEY, LATENTS)

    np.testing.assert_array_equal(progress.take_preview(KEY), LATENTS)
    assert progress.take_preview(KEY) is None
    assert files(progress) == [f"{KEY}.log"]


def test_cancel_is_seen_until_the_clip_is_forgotten(progress):
    for key in (KEY, OTHER):
        progress.open_clip(key)
    progress.cancel(KEY)
    assert progress.is_cancelled(KEY) and not progress.is_cancelled(OTHER)
    progress.leave_preview(KEY, LATENTS)
    progress.forget(KEY)

    assert not progress.is_cancelled(KEY)
    assert files(progress) == [f"{OTHER}.log"]
    progress.forget(KEY)


def test_a_forgotten_clip_does_not_come_back(progress):
    """A stage may tell about a clip that the front end has forgotten."""
    progress.open_clip(KEY)
    progress.forget(KEY)
    progress.stepped(KEY, 1, 4, 0.0)
    progress.stage_ended(KEY, "upsampler", 0.0)
    progress.leave_preview(KEY, LATENTS)

    assert files(progress) == [] and progress.read(KEY) == []


@pytest.mark.parametrize("key", NO_KEYS, ids=repr)
def test_what_is_no_key_touches_no_file(progress, key):
    outside = progress._path.parent / f"{KEY}.log"
    outside.write_text("step 1 2\n")
    progress.open_clip(key)
    progress.stepped(key, 1, 4, 0.0)
    progress.leave_preview(key, LATENTS)
    progress.cancel(key)

    assert not progress.is_cancelled(key)
    assert progress.read(key) == [] and progress.take_preview(key) is None
    progress.forget(key)
    assert files(progress) == [] and outside.read_text() == "step 1 2\n"


@pytest.mark.parametrize(
    "damage",
    [
        b"",
        b"\xff\xfe\x00",
        b"step 1\nstep a b\nended\nended x y z\npreview now\n \n",
        b"step " + b"9" * 10_000 + b" 4\n",
        b"0" * 10**6,
    ],
    ids=["empty", "no text", "no sense", "huge number", "long line"],
)
def test_damaged_files_of_a_clip_are_not_told_and_hurt_no_other(progress, damage):
    for key in (KEY, OTHER):
        progress.open_clip(key)
        progress.stepped(key, 1, 4, 0.0)
    for ending in ("log", "npy", "partial", "cancel"):
        (progress._path / f"{KEY}.{ending}").write_bytes(damage)

    assert progress.read(KEY) == [] and progress.take_preview(KEY) is None
    assert progress.read(OTHER) == [Stepped(1, 4)]
    progress.forget(KEY)
    assert files(progress) == [f"{OTHER}.log"]


def test_lines_between_damaged_ones_are_told(progress):
    progress.open_clip(KEY)
    progress.stepped(KEY, 1, 4, 0.0)
    with (progress._path / f"{KEY}.log").open("ab") as log:
        log.write(b"\x80nonsense\n")
    progress.stepped(KEY, 2, 4, 0.0)

    assert progress.read(KEY) == [Stepped(1, 4), Stepped(2, 4)]


@pytest.mark.parametrize(
    "array",
    [np.zeros((2, 2), np.float32), np.zeros((1, 2, 2, 4)), np.array([{}], object)],
    ids=["rank", "dtype", "pickle"],
)
def test_preview_of_another_kind_is_none(progress, array):
    progress.open_clip(KEY)
    np.save(progress._path / f"{KEY}.npy", array, allow_pickle=True)

    assert progress.take_preview(KEY) is None and files(progress) == [f"{KEY}.log"]


@pytest.mark.parametrize("ending", ["log", "npy", "cancel"])
def test_a_folder_in_place_of_a_file_fails_nothing(progress, ending):
    progress.open_clip(OTHER)
    (progress._path / f"{KEY}.{ending}").mkdir()
    progress.open_clip(KEY)
    progress.stepped(KEY, 1, 4, 0.0)
    progress.leave_preview(KEY, LATENTS)
    progress.take_preview(KEY)
    progress.cancel(KEY)
    progress.read(KEY)
    progress.forget(KEY)

    assert progress.read(OTHER) == []


@pytest.mark.parametrize("path", [None, "gone"])
def test_without_a_folder_nothing_is_told(tmp_path, path):
    progress = ProgressFolder(None if path is None else tmp_path / path)
    progress.open_clip(KEY)
    progress.stepped(KEY, 1, 4, 0.0)
    progress.leave_preview(KEY, LATENTS)
    progress.cancel(KEY)
    progress.forget(KEY)

    assert progress.read(KEY) == [] and not progress.is_cancelled(KEY)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("named", [None, ""])
def test_from_environment_tells_nothing_when_no_folder_is_named(monkeypatch, named):
    monkeypatch.delenv(VARIABLE, raising=False)
    if named is not None:
        monkeypatch.setenv(VARIABLE, named)
    assert ProgressFolder.from_environment()._path is None


def test_from_environment_takes_the_folder_that_is_named(monkeypatch, tmp_path):
    monkeypatch.setenv(VARIABLE, str(tmp_path))
    ProgressFolder.from_environment().open_clip(KEY)
    assert os.listdir(tmp_path) == [f"{KEY}.log"]


def test_lines_of_many_writers_stay_whole(progress):
    progress.open_clip(KEY)

    def write(number):
        for step in range(100):
            progress.stepped(KEY, number * 100 + step, 400, 0.0)

    threads = [threading.Thread(target=write, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(entry.step for entry in progress.read(KEY)) == list(range(400))
