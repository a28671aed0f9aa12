import os

import pytest

from reelserve.server.frontend.reloaded import MAX_FILE_BYTES, DoorError, OptionFile, Reloaded


def parse(contents):
    if contents["words"].startswith(b"bad"):
        raise DoorError("--words is bad")
    return contents["words"].decode()


@pytest.fixture
def words(tmp_path):
    (tmp_path / "words").write_text("one")
    return tmp_path / "words"


def test_look_takes_what_has_changed_and_says_so(words, caplog):
    reloaded = Reloaded({"words": OptionFile("--words", words)}, parse)
    assert reloaded.value == "one"

    reloaded.look()
    assert not caplog.messages
    words.write_text("two")
    reloaded.look()

    assert reloaded.value == "two"
    assert caplog.messages == [f"{words}: read again, and used from now on"]


@pytest.mark.parametrize("damage", ["bad", None])
def test_look_keeps_the_old_content_and_says_once_why(words, caplog, damage):
    reloaded = Reloaded({"words": OptionFile("--words", words)}, parse)
    words.unlink() if damage is None else words.write_text(damage)
    for _ in range(3):
        reloaded.look()

    problem = "bad" if damage else f"{words}, which cannot be read: No such file or directory"
    assert reloaded.value == "one"
    assert caplog.messages == [f"--words is {problem}; what was read before stays in use"]
    words.write_text("three")
    reloaded.look()
    assert reloaded.value == "three"


def test_look_follows_a_link_to_another_folder(tmp_path):
    """A cluster replaces all files of a secret at once by turning one link."""
    for name in ("old", "new"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "words").write_text(name)
    (tmp_path / "data").symlink_to("old")
    (tmp_path / "words").symlink_to("data/words")
    reloaded = Reloaded({"words": OptionFile("--words", tmp_path / "words")}, parse)

    (tmp_path / "next").symlink_to("new")
    (tmp_path / "next").replace(tmp_path / "data")
    reloaded.look()

    assert reloaded.value == "new"


def test_read_refuses_what_is_no_file_to_read_again(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "large").write_bytes(bytes(MAX_FILE_BYTES + 1))
    for name, words in (
        ("pipe", "is no regular file"),
        (".", "cannot be read: Is a directory"),
        ("none", "cannot be read: No such file or directory"),
        ("large", "is larger than the limit of 1048576 bytes"),
    ):
        with pytest.raises(DoorError, match=words) as caught:
            OptionFile("--words", tmp_path / name).read()
        assert str(caught.value).startswith(f"--words is {tmp_path / name}, which ")


def test_look_bears_that_no_file_can_be_opened(words, caplog):
    def parsed(contents):
        if contents["words"] == b"two":
            raise OSError(24, "Too many open files")
        return contents["words"]

    reloaded = Reloaded({"words": OptionFile("--words", words)}, parsed)
    words.write_text("two")
    reloaded.look()
    assert reloaded.value == b"one" and "Too many open files" in caplog.messages[0]
