"""Tokenizer of the text encoder: a `tokenizer.json` made from a packaged SentencePiece model.

The model file has an older layout than the libraries read: its pieces stand in field 1, and the
table of character replacements in field 2 of field 3.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from functools import cache

from tokenizers import Regex, Tokenizer, decoders, normalizers, pre_tokenizers, processors
from tokenizers.models import Unigram

from reelserve.models.packages import package_path
from reelserve.models.sentence_features import PACKAGE, RESOURCES

NUM_SLOTS = 4
"""Tokens before the words that the reader writes what it has read into."""
NUM_MARKS = 2
"""Tokens for the beginning and the end of the words."""
NUM_SPECIAL = NUM_SLOTS + NUM_MARKS
PAD_TOKEN = "[PAD]"
_UNKNOWN, _BEGIN, _END = 0, 1, 2
_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5


def _varint(data: bytes, at: int) -> tuple[int, int]:
    """A number of protobuf's variable length and the position after it."""
    value = shift = 0
    while True:
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        shift += 7
        if byte < 0x80:
            return value, at


def _fields(data: bytes) -> Iterator[tuple[int, bytes]]:
    """Number and content of every field of a protobuf message that holds bytes or a float."""
    at = 0
    while at < len(data):
        key, at = _varint(data, at)
        number, wire = key >> 3, key & 7
        if wire == _VARINT:
            _, at = _varint(data, at)
            continue
        if wire == _BYTES:
            size, at = _varint(data, at)
        elif wire in (_FIXED64, _FIXED32):
            size = 8 if wire == _FIXED64 else 4
        else:
            raise ValueError(f"unknown protobuf wire type {wire}")
        yield number, data[at : at + size]
        at += size


def _pieces(model: bytes) -> Iterator[tuple[str, float]]:
    """Pieces of the vocabulary with their log-probabilities, in the order of their ids."""
    for number, content in _fields(model):
        if number == 1:
            piece = dict(_fields(content))
            score = struct.unpack("<f", piece[2])[0] if 2 in piece else 0.0
            yield piece[1].decode(), score


def _replacements(model: bytes) -> bytes:
    """The compiled table of character replacements (NFKC and some more)."""
    return next(
        inner
        for number, content in _fields(model)
        if number == 3
        for inner_number, inner in _fields(content)
        if inner_number == 2
    )


@cache
def sentence_tokenizer_json() -> bytes:
    """Content of the text encoder's `tokenizer.json`.

    A text becomes `NUM_SLOTS` slots, the mark of its beginning, its pieces and the mark of its
    end. Slots and padding have the ids that follow the vocabulary's. Capital letters are read as
    small ones.

    Raises:
        FileNotFoundError: If the package is not installed.
    """
    model = package_path(PACKAGE, RESOURCES, "sp.model").read_bytes()
    pieces = list(_pieces(model))
    tokenizer = Tokenizer(Unigram(pieces, unk_id=_UNKNOWN))
    tokenizer.normalizer = normalizers.Sequence(
        [
            normalizers.Precompiled(_replacements(model)),
            normalizers.Lowercase(),
            normalizers.Replace(Regex(" {2,}"), " "),
            normalizers.Strip(),
        ]
    )
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="always", split=True)
    tokenizer.decoder = decoders.Metaspace(prepend_scheme="always", split=True)
    slots = [(f"<slot{number}>", len(pieces) + number) for number in range(NUM_SLOTS)]
    marks = [(pieces[_BEGIN][0], _BEGIN), (pieces[_END][0], _END)]
    names = " ".join(name for name, _ in slots)
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{names} {marks[0][0]} $A {marks[1][0]}", special_tokens=[*slots, *marks]
    )
    # The pieces end where the slots' ids begin, so that the padding comes after those.
    tokenizer.add_special_tokens([name for name, _ in slots] + [PAD_TOKEN])
    text: str = tokenizer.to_str()
    return text.encode()


def load_tokenizer(max_tokens: int) -> Tokenizer:
    """Loads the encoder's tokenizer with padding and truncation to `max_tokens`.

    Args:
        max_tokens: `L`, slots and marks included.

    Raises:
        ValueError: If `max_tokens` leaves no room beside slots and marks.
        FileNotFoundError: If the package is not installed.
    """
    if max_tokens <= NUM_SPECIAL:
        raise ValueError(f"max_tokens must be at least {NUM_SPECIAL + 1}, got {max_tokens}")
    tokenizer = Tokenizer.from_buffer(sentence_tokenizer_json())
    tokenizer.enable_truncation(max_length=max_tokens)
    pad = tokenizer.token_to_id(PAD_TOKEN)
    tokenizer.enable_padding(length=max_tokens, pad_id=pad, pad_token=PAD_TOKEN)
    return tokenizer


@cache
def vocabulary() -> tuple[str, ...]:
    """Pieces of the packaged model in the order of their ids.

    Raises:
        FileNotFoundError: If the package is not installed.
    """
    model = package_path(PACKAGE, RESOURCES, "sp.model").read_bytes()
    return tuple(piece for piece, _ in _pieces(model))
