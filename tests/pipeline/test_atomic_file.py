import os
import stat

import numpy as np
import pytest

from reelserve.pipeline.atomic_file import replaced_file, write_file


@pytest.mark.parametrize(
    ("content", "held"),
    [("ä\n", "ä\n".encode()), (b"\x00\xff", b"\x00\xff"), (memoryview(b"plan"), b"plan")],
    ids=["text", "bytes", "memoryview"],
)
@pytest.mark.parametrize("durable", [False, True])
def test_write_file_replaces_the_content(content, held, durable, tmp_path):
    path = tmp_path / "record.json"
    path.write_bytes(b"old content, which is longer than the new one")
    write_file(path, content, durable=durable)
    assert path.read_bytes() == held
    assert list(tmp_path.iterdir()) == [path]


def test_write_file_creates_a_file_and_takes_a_plain_string_as_path(tmp_path):
    write_file(str(tmp_path / "new"), "text")
    assert (tmp_path / "new").read_text() == "text"


def test_replaced_file_keeps_the_suffix_that_numpy_would_add(tmp_path):
    with replaced_file(tmp_path / "clip.npy") as partial:
        np.save(partial, np.arange(3))
    assert np.load(tmp_path / "clip.npy").tolist() == [0, 1, 2]


def test_replaced_file_shows_the_old_content_until_the_block_ends(tmp_path):
    path = tmp_path / "lock"
    path.write_text("old")
    with replaced_file(path) as partial:
        partial.write_text("new")
        assert path.read_text() == "old"
    assert path.read_text() == "new"


def test_replaced_file_keeps_the_old_file_when_the_block_raises(tmp_path):
    path = tmp_path / "lock"
    path.write_text("old")
    with pytest.raises(KeyError), replaced_file(path) as partial:
        partial.write_text("half")
        raise KeyError
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_replaced_file_raises_when_the_block_writes_nothing(tmp_path):
    with pytest.raises(FileNotFoundError), replaced_file(tmp_path / "lock"):
        pass
    assert list(tmp_path.iterdir()) == []


def test_write_file_raises_and_leaves_nothing_when_the_target_is_a_folder(tmp_path):
    (tmp_path / "taken").mkdir()
    with pytest.raises(OSError):
        write_file(tmp_path / "taken", "text")
    assert [path.name for path in tmp_path.iterdir()] == ["taken"]


def test_write_file_keeps_the_permissions_of_the_old_file(tmp_path):
    path = tmp_path / "secret"
    path.write_text("old")
    path.chmod(0o640)
    write_file(path, "new")
    assert path.stat().st_mode & 0o777 == 0o640


def test_write_file_gives_a_new_file_the_permissions_of_any_new_file(tmp_path):
    (tmp_path / "plain").write_text("text")
    write_file(tmp_path / "new", "text")
    assert os.stat(tmp_path / "new").st_mode == os.stat(tmp_path / "plain").st_mode


def test_replaced_file_gives_every_writer_a_path_of_its_own(tmp_path):
    path = tmp_path / "state.json"
    with replaced_file(path) as first, replaced_file(path) as second:
        assert first != second
        first.write_text("first")
        second.write_text("second")
    assert path.read_text() == "first"


def by_writing(path, content):
    write_file(path, content)


def by_replacing(path, content):
    with replaced_file(path) as partial:
        partial.write_text(content)


WRITERS = pytest.mark.parametrize("write", [by_writing, by_replacing])


@WRITERS
def test_a_symbolic_link_stays_and_the_file_behind_it_is_replaced(write, tmp_path):
    (tmp_path / "folder").mkdir()
    target, link = tmp_path / "folder" / "target", tmp_path / "link"
    target.write_text("old")
    target.chmod(0o600)
    link.symlink_to("folder/target")
    write(link, "new")
    assert link.is_symlink() and target.read_text() == "new"
    assert target.stat().st_mode & 0o777 == 0o600
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["folder", "link", "target"]


@WRITERS
def test_a_pipe_is_written_to(write, tmp_path):
    pipe = tmp_path / "pipe.json"
    os.mkfifo(pipe)
    reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    write(pipe, "content")
    assert os.read(reader, 100) == b"content" and stat.S_ISFIFO(pipe.stat().st_mode)
    os.close(reader)


@WRITERS
def test_a_device_stays_one(write, tmp_path):
    null = tmp_path / "null"
    null.symlink_to("/dev/null")
    write(null, "content")
    assert null.is_symlink() and stat.S_ISCHR(os.stat("/dev/null").st_mode)


@WRITERS
def test_a_descriptor_of_this_process_takes_the_content_where_it_stands(write, tmp_path):
    with (tmp_path / "log").open("w+b") as file:
        file.write(b"before ")
        file.flush()
        write(f"/dev/fd/{file.fileno()}", "content")
        file.seek(0)
        assert file.read() == b"before content"


@WRITERS
def test_a_file_that_is_read_only_is_kept(write, tmp_path):
    path = tmp_path / "kept"
    path.write_text("old")
    path.chmod(0o444)
    with pytest.raises(PermissionError, match="kept is read-only"):
        write(path, "new")
    assert path.read_text() == "old" and list(tmp_path.iterdir()) == [path]


@pytest.mark.skipif(os.geteuid() != 0, reason="only root gives files away")
def test_the_owner_of_a_file_stays_its_owner(tmp_path):
    path = tmp_path / "theirs"
    path.write_text("old")
    os.chown(path, 1234, 1235)
    write_file(path, "new")
    assert (path.stat().st_uid, path.stat().st_gid) == (1234, 1235)


def test_write_file_makes_the_folder(tmp_path):
    write_file(tmp_path / "a" / "b" / "new", "text")
    assert (tmp_path / "a" / "b" / "new").read_text() == "text"
