import hashlib

import pytest

from reelserve.server.frontend.api_keys import (
    MAX_KEYS,
    ApiKeys,
    KeyHolder,
    hash_of,
    key_line,
    new_key,
)
from reelserve.server.frontend.reloaded import DoorError

STUDIO = KeyHolder("studio", 2)


def written(folder, *lines):
    file = folder / "api_keys.txt"
    file.write_text("".join(f"{line}\n" for line in lines))
    return file


def test_caller_is_found_by_each_of_its_keys_alone(tmp_path):
    first, second, other = new_key(), new_key(), new_key()
    lines = [key_line(STUDIO, first), key_line(STUDIO, second).upper().replace("STUDIO", "studio")]
    keys = ApiKeys(written(tmp_path, "# who may call", "", *lines, "  lab\t3  " + "0" * 64))

    assert keys.caller(first) == keys.caller(second) == STUDIO
    assert [keys.caller(key) for key in (other, "", first[:-1], f"{first} ", "\ud800", "é")] == [
        None
    ] * 6


def test_a_line_holds_the_hash_that_sha256sum_tells():
    assert key_line(STUDIO, "abc") == f"studio 2 {hashlib.sha256(b'abc').hexdigest()}"


def test_keys_are_long_and_differ():
    keys = {new_key() for _ in range(100)}
    assert len(keys) == 100
    assert all(key.startswith("rsk_") and len(key) == 47 and key.isascii() for key in keys)


def test_no_empty_key_lets_anybody_in(tmp_path):
    assert ApiKeys(written(tmp_path, f"studio 2 {hash_of('').hex()}")).caller("") is None


def test_look_takes_new_keys_and_forgets_old_ones(tmp_path):
    old, new = new_key(), new_key()
    file = written(tmp_path, key_line(STUDIO, old))
    keys = ApiKeys(file)
    written(tmp_path, key_line(KeyHolder("lab", 5), new))
    keys.look()
    assert (keys.caller(old), keys.caller(new)) == (None, KeyHolder("lab", 5))

    # A file that is being written, or damaged, locks nobody out.
    for lines in ([], ["lab five"]):
        written(tmp_path, *lines)
        keys.look()
        assert keys.caller(new) == KeyHolder("lab", 5)


HASH = "a" * 64


@pytest.mark.parametrize(
    ("lines", "words"),
    [
        ([], "holds 0 keys; the limits are 1 to 1000"),
        (["# none"], "holds 0 keys"),
        ([f"n{i} 1 {i:064x}" for i in range(MAX_KEYS + 1)], "holds 1001 keys"),
        (["rsk_secret"], "line 1: it has 1 words; it must be NAME LIMIT HASH"),
        ([f"my studio 4 {HASH}"], "line 1: it has 4 words"),
        (["", f"stu/dio 4 {HASH}"], "line 2: NAME must be 1 to 64 letters, digits"),
        ([f"{'x' * 65} 4 {HASH}"], "NAME must be"),
        ([f"-studio 4 {HASH}"], "NAME must be"),
        ([f"studio 0 {HASH}"], "LIMIT must be a number of clips in flight from 1 to 1000000"),
        ([f"studio 1000001 {HASH}"], "LIMIT must be"),
        ([f"studio 00000000019 {HASH}"], "LIMIT must be"),
        ([f"studio ٤ {HASH}"], "LIMIT must be"),
        ([f"studio -1 {HASH}"], "LIMIT must be"),
        ([f"studio 4 {HASH[1:]}"], "HASH must be a SHA-256 in hexadecimal, 64 digits"),
        (["studio 4 rsk_secret"], "HASH must be"),
        ([f"studio 4 {HASH}", f"lab 4 {HASH}"], "line 2: its key is there already"),
        ([f"lab 4 {HASH}", f"lab 5 {'b' * 64}"], "line 2: lab has another limit on a line before"),
    ],
)
def test_a_file_is_refused_by_its_line(tmp_path, lines, words):
    file = written(tmp_path, *lines)
    with pytest.raises(DoorError) as caught:
        ApiKeys(file)
    assert str(caught.value).startswith(f"--api-keys is {file}, which ")
    assert words in str(caught.value) and "secret" not in str(caught.value)


def test_bytes_that_are_no_text_are_refused(tmp_path):
    file = tmp_path / "keys"
    file.write_bytes(b"\xff\x00" * 50)
    with pytest.raises(DoorError, match="line 1"):
        ApiKeys(file)
