import contextlib
import fcntl
import os
import signal
import stat
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from reelserve.server.launch import run_folder
from reelserve.server.launch.run_folder import (
    NAME,
    FolderError,
    check_parent,
    clear_leftovers,
    close_regions,
    region_prefix,
    run_parent,
    start_folder,
)
from tests.server.launch.containers import container, needs_namespaces

HOLDER = """
import os, sys, time
from pathlib import Path
from reelserve.server.launch.run_folder import start_folder, region_prefix
with start_folder(Path(sys.argv[1])) as folder:
    (folder / "clip").write_text("x")
    (folder.parent / f"{region_prefix(folder)}0_region").write_text("x")
    print(folder.name, os.getpid(), flush=True)
    time.sleep(60)
"""
KILLED = """
import os, signal, sys
from pathlib import Path
from reelserve.server.launch import run_folder

kind, name, parent = sys.argv[1], sys.argv[2], Path(sys.argv[3])
owner = {"os": os, "fcntl": run_folder.fcntl, "shutil": run_folder.shutil, "Path": Path}[kind]
usual = getattr(owner, name)

def killed(*arguments, **options):
    # After what it does, and only for what is this start's own.
    result = usual(*arguments, **options)
    if own or (name == "mkdir" and arguments[0].parent == parent):
        os.kill(os.getpid(), signal.SIGKILL)
    return result

own = False
setattr(owner, name, killed)
with run_folder.start_folder(parent) as folder:
    (folder / "clip").write_text("x")
    for number in range(3):
        (parent / f"{run_folder.region_prefix(folder)}{number}_region").write_text("x")
    own = True
"""
"""Killed right after a call, of `mkdir` at its start and of the others while it cleans up."""
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
            yield process, process.stdout.readline().split()[0]
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


@needs_namespaces
def test_containers_with_equal_pids_keep_theirs_and_lose_what_the_dead_one_left(tmp_path):
    with (
        container(["-c", HOLDER, str(tmp_path)]) as dying,
        container(["-c", HOLDER, str(tmp_path)]) as living,
    ):
        dead, alive = (one.stdout.readline().split() for one in (dying, living))
        assert dead[1] == alive[1] == "1", "the same process id in both"
        dying.kill()
        dying.wait()
        with container(["-c", HOLDER, str(tmp_path)]) as again:
            fresh, pid = again.stdout.readline().split()
            assert pid == "1"
            owners = {fresh, alive[0]}
            regions = {f"{name.replace('-', '_')}_0_region" for name in owners}
            assert names(tmp_path) == owners | regions


@pytest.mark.parametrize(
    "moment", ["Path.mkdir", "Path.unlink", "shutil.rmtree", "os.close"], ids=str
)
def test_nothing_is_left_when_a_start_is_killed_at_any_moment(tmp_path, moment):
    with holder(tmp_path) as (_, alive):
        command = [sys.executable, "-c", KILLED, *moment.split("."), str(tmp_path)]
        assert subprocess.run(command, check=False).returncode == -signal.SIGKILL
        with start_folder(tmp_path) as mine:
            kept = {alive, mine.name, f"{alive.replace('-', '_')}_0_region"}
            assert names(tmp_path) == kept


def test_regions_without_a_folder_are_cleared(tmp_path):
    """Triton may have made one after its dead launcher's folder was cleared."""
    (tmp_path / f"{region_prefix(Path(DEAD))}0_region").write_text("x")
    (tmp_path / "reelserve_other").write_text("x")
    clear_leftovers(tmp_path)

    assert names(tmp_path) == {"reelserve_other"}


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


@pytest.mark.parametrize("squatter", ["folder", "link", "file"])
def test_a_squatted_name_is_refused_by_name(tmp_path, monkeypatch, squatter):
    """Whoever guesses it: the folder would be his, or lead where he wants."""
    monkeypatch.setattr(run_folder.secrets, "token_hex", lambda count: "0" * 2 * count)
    outside, squatted = tmp_path / "outside", tmp_path / DEAD
    outside.mkdir()
    monkeypatch.setattr(run_folder, "clear_leftovers", lambda parent: None)
    if squatter == "folder":
        squatted.mkdir()
        squatted.chmod(0o777)
    elif squatter == "link":
        squatted.symlink_to(outside)
    else:
        squatted.write_text("x")
    with pytest.raises(FolderError) as caught, start_folder(tmp_path):
        pass

    assert str(caught.value) == f"{squatted} is there already, and not made by this start"
    assert names(tmp_path) == {"outside", DEAD} and names(outside) == set()


def test_a_parent_where_others_may_replace_folders_is_refused_by_name(tmp_path):
    for mode in (0o777, 0o770, 0o702):
        tmp_path.chmod(mode)
        words = rf"{tmp_path} has mode {mode:04o}, .* must have the sticky bit \(1777\)"
        with pytest.raises(FolderError, match=words), start_folder(tmp_path):
            pass
        # The volumes of a pod.
        with start_folder(tmp_path, single_user=True) as folder:
            assert folder.is_dir()
    for mode in (0o1777, 0o755, 0o700):
        tmp_path.chmod(mode)
        check_parent(tmp_path)
    assert names(tmp_path) == set()


@pytest.mark.skipif(os.geteuid() != 0, reason="gives a folder to another user")
def test_a_parent_of_another_user_is_refused_by_name(tmp_path):
    os.chown(tmp_path, 12345, 12345)
    with pytest.raises(FolderError, match=f"{tmp_path} belongs to user 12345"):
        check_parent(tmp_path)


def test_a_lock_on_the_parent_holds_nobody_up(tmp_path):
    """Every user may lock `/tmp` and `/dev/shm`, for ever."""
    descriptor = os.open(tmp_path, os.O_RDONLY)
    fcntl.flock(descriptor, fcntl.LOCK_EX)
    with start_folder(tmp_path) as folder:
        assert folder.is_dir()
    os.close(descriptor)


def test_a_folder_that_another_start_clears_before_it_is_locked_is_made_again(
    tmp_path, monkeypatch
):
    made, open_folder = [], os.open

    def cleared(path, flags, **options):
        if not made:
            Path(path).rmdir()
        made.append(path)
        return open_folder(path, flags, **options)

    monkeypatch.setattr(run_folder.os, "open", cleared)
    with start_folder(tmp_path) as folder:
        assert made[0] != folder == made[-1]
        assert names(tmp_path) == {folder.name}
    monkeypatch.setattr(run_folder, "ATTEMPTS", 1)
    made.clear()
    with pytest.raises(FolderError, match="was removed 1 times"), start_folder(tmp_path):
        pass


def test_close_regions_takes_them_from_other_users(tmp_path):
    regions = [tmp_path / f"reelserve_1_{number}" for number in range(3)]
    for region, mode in zip(regions, (0o644, 0o600, 0o606), strict=True):
        region.write_text("x")
        region.chmod(mode)
    (tmp_path / "other").write_text("x")
    (tmp_path / "other").chmod(0o644)
    (tmp_path / "reelserve_1_link").symlink_to(tmp_path / "other")

    assert close_regions(tmp_path, "reelserve_1_") == 2
    assert [stat.S_IMODE(region.stat().st_mode) for region in regions] == [0o600] * 3
    assert stat.S_IMODE((tmp_path / "other").stat().st_mode) == 0o644
    assert close_regions(tmp_path, "reelserve_1_") == 0


def test_run_parent_holds_no_white_space(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    assert run_parent() == tmp_path.resolve()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "my videos"))
    assert run_parent() == Path("/tmp")
