import pytest

from reelserve.pipeline.padding import pad_token_of


@pytest.mark.parametrize(
    ("vocabulary", "expected"),
    [({"<pad>": 0, "a": 1}, ("<pad>", 0)), ({"a": 0, "[PAD]": 7}, ("[PAD]", 7))],
)
def test_pad_token_of_gives_token_and_id(vocabulary, expected) -> None:
    assert pad_token_of(vocabulary.get) == expected


def test_pad_token_of_fails_when_there_is_none() -> None:
    with pytest.raises(ValueError, match=r"has none of the tokens \[PAD\], <pad>"):
        pad_token_of({"a": 0}.get)
