"""Tokenizers of public checkpoints: read, made from SentencePiece, or refused."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from tokenizers import Tokenizer

from reelserve.export.families.layout import Checkpoint
from reelserve.export.families.tokenizer import tokenizer_json
from reelserve.pipeline.checkpoint_files import CheckpointFileError
from tests.server.tiny_repository import tiny_tokenizer

CODE = """
from pathlib import Path
Path(__file__).with_name("ran").touch()
from transformers import T5Tokenizer as Own
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "tokenizer"
    made.mkdir()
    return made


def checkpoint(folder: Path, class_name: str = "T5TokenizerFast") -> Checkpoint:
    index = {"_class_name": "LTXPipeline", "tokenizer": ["transformers", class_name]}
    (folder.parent / "model_index.json").write_text(json.dumps(index))
    return Checkpoint.open(folder.parent)


@pytest.fixture
def pieces(folder: Path):
    """Trains a `spiece.model` and nothing beside it; gives its own encoder."""
    sentencepiece = pytest.importorskip("sentencepiece", reason="needs reelserve[families]")
    corpus = folder.parent / "corpus.txt"
    corpus.write_text("\n".join(["a red star moves at sea", "hearts bounce on plain ground"] * 20))
    sentencepiece.SentencePieceTrainer.train(
        input=str(corpus),
        model_prefix=str(folder / "spiece"),
        vocab_size=30,
        pad_id=0,
        eos_id=1,
        unk_id=2,
        bos_id=-1,
        hard_vocab_limit=False,
        minloglevel=2,
    )
    (folder / "spiece.vocab").unlink()
    return sentencepiece.SentencePieceProcessor(str(folder / "spiece.model"))


@pytest.mark.parametrize("class_name", ["T5Tokenizer", "T5TokenizerFast"])
def test_lone_sentencepiece_model_is_read_by_the_class_of_the_index(folder, pieces, class_name):
    content = tokenizer_json(checkpoint(folder, class_name))
    ids = Tokenizer.from_str(content.decode()).encode("a red star").ids
    assert ids == [*pieces.encode("a red star"), 1]


def test_sentencepiece_model_is_refused_where_the_class_reads_none(folder, pieces):
    with pytest.raises(CheckpointFileError, match=r"is of class BertTokenizer; a spiece\.model"):
        tokenizer_json(checkpoint(folder, "BertTokenizer"))


def test_code_of_a_checkpoint_never_runs(folder, pieces):
    (folder / "own.py").write_text(CODE)
    auto_map = {"AutoTokenizer": ["own.Own", None]}
    (folder / "tokenizer_config.json").write_text(
        json.dumps({"tokenizer_class": "Own", "auto_map": auto_map})
    )
    tokenizer_json(checkpoint(folder))
    with pytest.raises(CheckpointFileError, match="is of class Own; "):
        tokenizer_json(checkpoint(folder, "Own"))
    assert not (folder / "ran").exists()


def test_vocabulary_of_another_folder_is_not_read(folder, pieces, tmp_path):
    other = tmp_path / "other.model"
    other.write_bytes(b"no model")
    names = {"vocab_file": str(other), "tokenizer_file": "../other.json"}
    (folder / "tokenizer_config.json").write_text(json.dumps(names))
    ids = Tokenizer.from_str(tokenizer_json(checkpoint(folder)).decode()).encode("a red star").ids
    assert ids == [*pieces.encode("a red star"), 1]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", r"tokenizer\.json: is empty"),
        (b"version https://git-lfs.github.com/spec/v1\n", "is a pointer of Git LFS"),
        (b"{}", r"tokenizer\.json: no tokenizer: "),
        (b"\xff", r"tokenizer\.json: no tokenizer: "),
    ],
)
def test_tokenizer_json_refuses_what_is_none(folder, content, message):
    (folder / "tokenizer.json").write_bytes(content)
    with pytest.raises(CheckpointFileError, match=message):
        tokenizer_json(checkpoint(folder))


def test_sentencepiece_model_that_is_none_is_refused(folder, pieces):
    (folder / "spiece.model").write_bytes(b"no model")
    with pytest.raises(CheckpointFileError, match="T5TokenizerFast cannot be made from it: "):
        tokenizer_json(checkpoint(folder))


def test_padding_must_be_what_the_server_pads_with(folder):
    tiny_tokenizer().save(str(folder / "tokenizer.json"))
    config = folder / "tokenizer_config.json"
    for pad in ("[PAD]", {"content": "[PAD]"}):
        config.write_text(json.dumps({"pad_token": pad}))
        tokenizer_json(checkpoint(folder))
    config.write_text(json.dumps({"pad_token": "[SEP]"}))
    with pytest.raises(CheckpointFileError, match=r"pad_token is '\[SEP\]'; it must be '\[PAD\]'"):
        tokenizer_json(checkpoint(folder))


def test_tokenizer_json_names_the_folder_when_it_is_missing(folder):
    with pytest.raises(FileNotFoundError, match=r"has neither tokenizer\.json nor spiece\.model"):
        tokenizer_json(checkpoint(folder))
    folder.rmdir()
    with pytest.raises(FileNotFoundError, match="component 'tokenizer' is missing"):
        tokenizer_json(checkpoint(folder))
