from pathlib import Path

import pytest

from reelserve.pipeline import checkpoint_files
from reelserve.pipeline.checkpoint_files import (
    LFS_POINTER,
    CheckpointFileError,
    inside,
    one_line,
    read_json_object,
)


def test_read_json_object_gives_the_object(tmp_path: Path) -> None:
    path = tmp_path / "config.json"
    path.write_text('{"shift": 5.0}')
    assert read_json_object(path) == {"shift": 5.0}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is empty; fetch it again"),
        (LFS_POINTER + b"v1\n", "is a pointer of Git LFS"),
        (b"{", "not valid JSON: "),
        (b"\xff\xfe", "not valid JSON: "),
        (b'{"a": Infinity}', "not valid JSON: Infinity is no JSON"),
        (b'{"a": ' + b"9" * 5000 + b"}", "not valid JSON: "),
        (b"[" * 10**5, "not valid JSON: nested too deeply"),
        (b"[1]", "must hold a JSON object, holds list"),
    ],
)
def test_read_json_object_names_the_file_and_what_is_wrong(
    tmp_path: Path, content: bytes, message: str
) -> None:
    path = tmp_path / "config.json"
    path.write_bytes(content)
    with pytest.raises(CheckpointFileError, match=f"^{path}: {message}"):
        read_json_object(path)


def test_read_json_object_refuses_what_is_too_large(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(checkpoint_files, "MAX_TEXT_BYTES", 3)
    path = tmp_path / "config.json"
    path.write_text('{"a": 1}')
    with pytest.raises(CheckpointFileError, match="has 8 bytes; the limit is 3"):
        read_json_object(path)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("model.safetensors", True),
        ("models/x4", True),
        ("a..b", True),
        ("../model", False),
        ("a/../../b", False),
        ("/etc/passwd", False),
        ("a\\b", False),
        ("", False),
    ],
)
def test_inside_is_true_for_paths_that_stay_in_their_folder(name: str, expected: bool) -> None:
    assert inside(name) is expected


def test_one_line_shortens_what_a_library_says() -> None:
    assert one_line(ValueError("a\n  b")) == "ValueError: a b"
    assert one_line(KeyError()) == "KeyError"
    assert len(one_line(ValueError("x" * 10**6))) < 400
