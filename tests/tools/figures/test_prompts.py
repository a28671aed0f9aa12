"""The load test's sentences are those of the hand-written list."""

import json
from pathlib import Path

import pytest

from reelserve.loadtest.plan import PROMPTS_FILE, read_prompts
from reelserve.tools.figures.command import fill_prompts
from reelserve.tools.figures.prompts import SOURCE, TARGET, load_test_prompts

ROOT = Path(__file__).parents[3]


def write_list(root: Path, *sentences: str) -> None:
    (root / SOURCE).parent.mkdir(parents=True)
    (root / TARGET).parent.mkdir()
    entries = [{"text": sentence} for sentence in sentences]
    (root / SOURCE).write_text(json.dumps(entries), encoding="utf-8")


def test_committed_sentences_are_those_of_the_list():
    assert PROMPTS_FILE.read_text(encoding="utf-8") == load_test_prompts(ROOT)
    assert len(read_prompts(PROMPTS_FILE)) == 200


def test_sentences_are_written_once_and_only_when_asked(tmp_path):
    write_list(tmp_path, "a cat", "zwei Häuser")
    assert fill_prompts(tmp_path, write=False) == [tmp_path / TARGET]
    assert not (tmp_path / TARGET).exists()
    assert fill_prompts(tmp_path, write=True) == [tmp_path / TARGET]
    assert (tmp_path / TARGET).read_text(encoding="utf-8") == "a cat\nzwei Häuser\n"
    assert fill_prompts(tmp_path, write=True) == []


def test_nothing_is_stale_where_there_is_no_list(tmp_path):
    assert fill_prompts(tmp_path, write=True) == []


@pytest.mark.parametrize("sentences", [("a cat", "a cat"), ("a\ncat",), (" a cat",), ("",)])
def test_sentences_that_are_no_line_of_their_own_are_refused(tmp_path, sentences):
    write_list(tmp_path, *sentences)
    with pytest.raises(ValueError, match=r"hand_written\.json: '"):
        load_test_prompts(tmp_path)
