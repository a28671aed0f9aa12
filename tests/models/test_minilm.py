from pathlib import Path

import pytest
import torch

from reelserve.models.minilm import MiniLMEncoder, load_minilm


def test_minilm_gives_token_embeddings_that_ignore_padding() -> None:
    encoder = load_minilm()
    ids = torch.tensor([[101, 1037, 2417, 4418, 102, 0, 0]])
    mask = torch.tensor([[1, 1, 1, 1, 1, 0, 0]])
    embeds = encoder(ids, mask)
    assert embeds.shape == (1, 7, encoder.embed_dim) == (1, 7, 384)
    other = ids.clone()
    other[0, 5:] = 2003
    torch.testing.assert_close(encoder(other, mask)[:, :5], embeds[:, :5], rtol=0, atol=1e-5)
    assert not torch.allclose(embeds[0, 2], embeds[0, 3])


def test_minilm_fails_when_folder_is_empty(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"has no model\.safetensors; fetch it"):
        MiniLMEncoder(tmp_path)
