from pathlib import Path

import pytest
import torch

from reelserve.models.text_encoder import (
    TextEncoder,
    encode_texts,
    load_text_encoder,
    load_tokenizer,
)

MAX_TOKENS = 16


def test_encode_texts_gives_token_embeddings_and_mask() -> None:
    embeds, mask = encode_texts(["a red circle", ""], MAX_TOKENS)
    assert embeds.shape == (2, MAX_TOKENS, 384)
    assert mask.dtype == torch.bool
    # [CLS] a red circle [SEP], and the two special tokens alone.
    assert mask.sum(1).tolist() == [5, 2]
    assert not torch.allclose(embeds[0, 2], embeds[0, 3])


def test_encode_texts_agrees_when_texts_come_in_other_batches() -> None:
    texts = ["a red circle", "a tiny blue star orbits slowly", "snow"]
    together, _ = encode_texts(texts, MAX_TOKENS)
    apart, _ = encode_texts(texts, MAX_TOKENS, batch_size=1)
    torch.testing.assert_close(together, apart, rtol=0, atol=1e-5)


def test_encode_texts_knows_that_similar_sentences_are_close() -> None:
    embeds, mask = encode_texts(["a red ball bounces", "a crimson ball jumps", "taxes"], MAX_TOKENS)
    pooled = (embeds * mask[..., None]).sum(1) / mask.sum(1, keepdim=True)
    near, far = torch.cosine_similarity(pooled[0], pooled[1:])
    assert near > 0.5 > far


def test_load_tokenizer_cuts_when_text_is_long() -> None:
    encoding = load_tokenizer(MAX_TOKENS).encode("star " * 100)
    assert len(encoding.ids) == MAX_TOKENS
    assert all(encoding.attention_mask)


def test_load_tokenizer_fails_when_length_leaves_no_room() -> None:
    with pytest.raises(ValueError, match="max_tokens must be at least 3, got 2"):
        load_tokenizer(2)


def test_text_encoder_fails_when_folder_is_empty(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"has no model\.safetensors; fetch it"):
        TextEncoder(tmp_path)


def test_text_encoder_states_its_width() -> None:
    assert load_text_encoder().embed_dim == 384
