import contextlib
import os
import signal
import stat
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from reelserve.server.launch.run_folder import (
    NAME,
    clear_leftovers,
    region_prefix,
    run_parent,
    start_folder,
)

HOLDER = """
import sys, time
from pathlib import Path
from reelserve.server.launch.run_folder import start_folder, region_prefix
with start_folder(Path(sys.argv[1])) as folder:
    (folder / "clip").write_text("x")
    (folder.parent / f"{region_prefix(folder)}0_region").write_text("x")
    print(folder.name, flush=True)
    time.sleep(60)
"""
DEAD = "reelserve-" + "0" * 32


def names(parent: Path) -> set[str]:
    return {path.name for path in parent.iterdir()}


@contextlib.contextmanager
def holder(parent: Path):
    """Another process that holds a folder; its name."""
    command = [sys.executable, "-c", HOLDER, str(parent)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            yield process, process.stdout.readline().strip()
        finally:
            process.kill()


def test_start_folder_is_unguessable_private_and_removed(tmp_path):
    with start_folder(tmp_path) as folder, start_folder(tmp_path) as other:
        assert NAME.fullmatch(folder.name) and folder != other
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700
        assert names(tmp_path) == {folder.name, other.name}, "two at once"
        for one in (folder, other):
            (one / "clip.log").write_text("x")
            (tmp_path / f"{region_prefix(one)}0_region").write_text("x")
    assert names(tmp_path) == set()


def test_start_folder_is_removed_when_the_block_fails(tmp_path):
    with pytest.raises(ZeroDivisionError), start_folder(tmp_path):
        raise ZeroDivisionError
    assert names(tmp_path) == set()


def test_region_prefix_bears_the_token_of_the_folder(tmp_path):
    with start_folder(tmp_path) as folder:
        token = NAME.fullmatch(folder.name)["token"]
        assert region_prefix(folder) == f"reelserve_{token}_"


def test_leftovers_of_a_killed_process_are_cleared_and_those_of_a_live_one_kept(tmp_path):
    with holder(tmp_path) as (dying, dead), holder(tmp_path) as (_, alive):
        dying.send_signal(signal.SIGKILL)
        dying.wait()
        assert {dead, alive} <= names(tmp_path), "nobody has cleaned up yet"
        with start_folder(tmp_path) as mine:
            prefixes = {name.split("_")[1] for name in names(tmp_path) if name[9] == "_"}
            folders = {name for name in names(tmp_path) if name[9] == "-"}
            assert folders == {alive, mine.name}
            assert prefixes == {alive.removeprefix("reelserve-")}
            assert (tmp_path / alive / "clip").is_file()


def test_leftovers_are_cleared_whatever_is_in_them(tmp_path):
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "kept").write_text("x")
    folder = tmp_path / DEAD
    (folder / "deep" / "er").mkdir(parents=True)
    (folder / "link").symlink_to(outside)
    (tmp_path / f"{region_prefix(folder)}link").symlink_to(outside / "kept")
    clear_leftovers(tmp_path)

    assert names(tmp_path) == {"outside"}
    assert (outside / "kept").read_text() == "x"


def test_links_and_other_names_are_not_followed(tmp_path):
    outside = tmp_path / "outside"
    (outside / "kept").mkdir(parents=True)
    (tmp_path / DEAD).symlink_to(outside)
    (tmp_path / ("reelserve-" + "1" * 32)).write_text("a file")
    for name in ("reelserve-", "reelserve-" + "A" * 32, "reelserve-" + "0" * 31, "other"):
        (tmp_path / name).mkdir()
    before = names(tmp_path)
    clear_leftovers(tmp_path)

    assert names(tmp_path) == before and (outside / "kept").is_dir()


@pytest.mark.skipif(os.geteuid() != 0, reason="gives a folder to another user")
def test_folders_of_other_users_are_kept(tmp_path):
    (tmp_path / DEAD).mkdir()
    os.chown(tmp_path / DEAD, 12345, 12345)
    clear_leftovers(tmp_path)

    assert names(tmp_path) == {DEAD}


def test_run_parent_holds_no_white_space(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    assert run_parent() == tmp_path.resolve()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "my videos"))
    assert run_parent() == Path("/tmp")
